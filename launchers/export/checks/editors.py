"""Configurations of editors: schemas made from their packages, and the programs themselves where they are here."""

import json
import re
from collections.abc import Iterator
from typing import Final

from glmplan.launchers.export import yaml_text
from glmplan.launchers.export.checks.configurations import by_schema
from glmplan.launchers.export.checks.report import CheckReport, Outcome, Tools, as_file, ask
from glmplan.launchers.export.exported import Exported
from glmplan.launchers.json_values import mapping

# A start from a cold disk reads 180 MB.
_OPENCODE_TIMEOUT_S: Final = 120.0
# `opencode debug config` reads the file that a reference names; the key file lies on the target machine.
_FILE_REFERENCE: Final = re.compile(r"\{file:[^{}]*\}")
_OFFLINE: Final = {
    f"OPENCODE_DISABLE_{name}": "1"
    for name in ("AUTOUPDATE", "DEFAULT_PLUGINS", "LSP_DOWNLOAD", "MODELS_FETCH", "PROJECT_CONFIG")
}
_HOMES: Final = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
_KEY: Final = "apiKey"


def opencode(exported: Exported, tools: Tools) -> CheckReport:
    """The types of its own SDK; if opencode is here, that it reads the file and keeps every word of it."""
    report = by_schema(exported, "opencode", "the types of @opencode-ai/sdk 1.19.3", json.loads)
    program = tools.program("opencode")
    if report.problems or program is None:
        return report
    text = _FILE_REFERENCE.sub("key", exported.text)
    with as_file(Exported(text=text, suffix=".json"), "opencode.json") as path:
        env = {**dict.fromkeys(_HOMES, str(path.parent)), **_OFFLINE, "OPENCODE_CONFIG": str(path)}
        outcome = ask([program, "--pure", "debug", "config"], env=env, timeout_s=_OPENCODE_TIMEOUT_S)
    return CheckReport(by=(*report.by, "opencode debug config"), problems=_opencode_problems(outcome, json.loads(text)))


def continue_config(exported: Exported, tools: Tools) -> CheckReport:
    """The schema of its own configuration package; if its program is here, that reads the file."""
    by = "the schema of @continuedev/config-yaml 1.42.0"
    report = by_schema(exported, "continue", by, yaml_text.load)
    program = tools.program("config-yaml")
    if report.problems or program is None:
        return report
    with as_file(exported, "config.yaml") as path:
        outcome = ask([program, str(path)])
    return CheckReport(by=(*report.by, "Continue's config-yaml"), problems=_said(outcome, "- "))


def _opencode_problems(outcome: Outcome, document: object) -> tuple[str, ...]:
    """Why opencode refused the file, or what of it is not in the configuration that it ends up with."""
    if outcome.returncode != 0:
        return _said(outcome, "↳ ")
    try:
        resolved = json.loads(outcome.stdout)
    except ValueError:
        return ("opencode's answer is no JSON",)
    return tuple(f"opencode drops {place}" for place in _dropped(document, resolved, ""))


def _dropped(wrote: object, read: object, place: str) -> Iterator[str]:
    """Places of `wrote` that `read` does not have, or has otherwise; the key, shown as stars, is left out."""
    inside = mapping(wrote)
    for name, value in inside.items():
        if name != _KEY:
            yield from _dropped(value, mapping(read).get(name), f"{place}.{name}" if place else name)
    if not inside and wrote != read:
        yield place


def _said(outcome: Outcome, bullet: str) -> tuple[str, ...]:
    """The reasons after a program's `bullet`; all it said when there is none."""
    reasons = [line.strip().removeprefix(bullet) for line in (outcome.stderr + outcome.stdout).splitlines()
               if line.strip().startswith(bullet)]  # fmt: skip
    return tuple(reasons) if reasons and outcome.returncode != 0 else outcome.problems()
