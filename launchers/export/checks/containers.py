"""Compose files: the published schema, Docker's own reader where it is here, and llama-server for the command."""

from typing import Any

from glmplan.launchers.export import yaml_text
from glmplan.launchers.export.checks import json_schema, llama_server
from glmplan.launchers.export.checks.report import CheckReport, Tools, as_file, ask
from glmplan.launchers.export.exported import Exported


def compose(exported: Exported, tools: Tools) -> CheckReport:
    """The Compose Specification's schema; `docker compose config` if Docker has it."""
    by = ["the Compose Specification's schema"]
    try:
        document: Any = yaml_text.load(exported.text)
    except ValueError as error:
        return CheckReport(by=tuple(by), problems=(str(error),))
    problems = list(json_schema.problems(document, json_schema.schema("compose-spec")))
    if problems:
        return CheckReport(by=tuple(by), problems=tuple(problems))
    docker = tools.program("docker")
    if docker and ask([docker, "compose", "version"]).returncode == 0:
        by.append("docker compose config")
        with as_file(exported, "compose.yaml") as path:
            problems += ask([docker, "compose", "-f", str(path), "config", "--quiet"]).problems()
    judged = llama_server.words(command_of(document), tools)
    return CheckReport(by=(*by, *judged.by), problems=(*problems, *judged.problems))


def command_of(document: dict[str, Any]) -> list[str]:
    """The service's command, as Compose passes it on: `$$` is one dollar sign."""
    return [str(word).replace("$$", "$") for word in document["services"]["llama-server"]["command"]]
