"""llama-server judges a preset file: its router reads it at the start and shows what it made of it."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from glmplan.engine import Engine, engine_environment
from glmplan.launchers.export.checks import grammars
from glmplan.launchers.export.checks.llama_server import name_of, words
from glmplan.launchers.export.checks.report import CheckReport, Outcome, Tools, as_file
from glmplan.launchers.export.exported import Exported
from glmplan.launchers.export.targets import llama_server_options
from glmplan.launchers.json_values import listing, mapping
from glmplan.launchers.port import free_port

_START_S: Final = 20.0
_PRESET_ONLY: Final = frozenset({"version"})


def preset(exported: Exported, tools: Tools) -> CheckReport:
    """The router's reading and then the parser's of the command lines it shows; without llama-server, our own."""
    own = ("our reading of the preset grammar", "our table of llama-server's options")
    try:
        sections = grammars.preset(exported.text)
    except ValueError as error:
        return CheckReport(by=own[:1], problems=(str(error),))
    if tools.llama_server is None:
        known = {name.removeprefix("--") for name in llama_server_options()} | _PRESET_ONLY
        unknown = [key for section in sections.values() for key in section if key not in known]
        return CheckReport(by=own, problems=tuple(f"llama-server has no option --{key}" for key in unknown))
    return _by_router(exported, tools.llama_server, tools)


def _by_router(exported: Exported, engine: Engine, tools: Tools) -> CheckReport:
    by = (f"{name_of(engine)}'s own router",)
    with as_file(exported, "models.ini") as path:
        answer = ask_router(engine, path)
    if isinstance(answer, Outcome):
        return CheckReport(by=by, problems=answer.problems(quiet=True))
    judged = [words(argv[1:], tools) for argv in answer.values()]
    problems = tuple(problem for report in judged for problem in report.problems)
    return CheckReport(by=(*by, *(judged[0].by if judged else ())), problems=problems)


def ask_router(engine: Engine, path: Path) -> dict[str, list[str]] | Outcome:
    """The command lines the router would start, by model; an `Outcome` when it refuses the file."""
    port = free_port("127.0.0.1")
    argv = [engine.path, "--models-preset", str(path), "--host", "127.0.0.1", "--port", str(port), "--offline"]
    with _running([*argv, "--no-models-autoload"], engine) as (router, said):
        until = time.monotonic() + _START_S
        while time.monotonic() < until and router.poll() is None:
            with suppress(OSError, ValueError):
                rows = listing(_get(f"http://127.0.0.1:{port}/v1/models").get("data"))
                return {str(mapping(row).get("id")): _arguments(row) for row in rows}
            time.sleep(0.05)
        said.seek(0)
        return Outcome(returncode=router.poll() or -1, stdout="", stderr=said.read().decode("utf-8", "replace"))


def _arguments(row: object) -> list[str]:
    return [str(word) for word in listing(mapping(mapping(row).get("status")).get("args"))]


def _get(url: str) -> dict[str, Any]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as answer:
        return mapping(json.load(answer))


@contextmanager
def _running(argv: list[str], engine: Engine) -> "Generator[tuple[subprocess.Popen[bytes], Any]]":
    """A router as long as the block runs, and what it says; nothing of it is left afterwards."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")}
    with TemporaryFile() as said:
        router = subprocess.Popen(
            argv, env=env | engine_environment(engine, env), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield router, said
        finally:
            with suppress(ProcessLookupError):
                os.killpg(router.pid, signal.SIGKILL)
            router.wait()
