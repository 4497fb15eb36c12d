"""llama-server judges its own command lines: it parses its arguments in order and stops at `--version`."""

import os
import shlex
from collections.abc import Mapping, Sequence

from glmplan.engine import Engine, engine_environment
from glmplan.launchers.export import targets
from glmplan.launchers.export.checks import grammars
from glmplan.launchers.export.checks.report import CheckReport, Outcome, Tools, as_file, ask
from glmplan.launchers.export.exported import Exported


def script(exported: Exported, tools: Tools) -> CheckReport:
    """The shell reads the script; shellcheck and llama-server, where they are here, judge it and its command."""
    by, problems = ["sh -n"], list[str]()
    with as_file(exported, "launch.sh") as path:
        problems += ask(["sh", "-n", str(path)]).problems()
        if shellcheck := tools.program("shellcheck"):
            by.append("shellcheck")
            # Milder than a warning are remarks such as "a `$` in single quotes", which is what a file may be called.
            problems += ask([shellcheck, "--severity=warning", str(path)]).problems()
        if tools.llama_server and not problems:
            by.append("the script's own dry run")
            outcome = ask(["sh", str(path), "--dry-run"], env={"LLAMA_SERVER": tools.llama_server.path})
            problems += outcome.problems() if outcome.returncode else ()
            judged = words(shlex.split(outcome.stdout)[1:], tools)
            by += judged.by
            problems += judged.problems
    return CheckReport(by=tuple(by), problems=tuple(problems))


def powershell(exported: Exported, tools: Tools) -> CheckReport:
    """PowerShell's own parser if it is here, otherwise our reading of its quotes and brackets."""
    shell = tools.program("pwsh") or tools.program("powershell")
    if shell is None:
        by = ("our reading of PowerShell's quotes and brackets",)
        try:
            grammars.powershell(exported.text)
        except ValueError as error:
            return CheckReport(by=by, problems=(str(error),))
        return CheckReport(by=by)
    with as_file(exported, "launch.ps1") as path:
        parse = (
            "$e = $null; [void][Management.Automation.Language.Parser]::ParseFile($args[0], [ref]$null, [ref]$e); $e"
        )
        outcome = ask([shell, "-NoProfile", "-NonInteractive", "-CommandWithArgs", parse, str(path)])
    return CheckReport(by=("PowerShell's own parser",), problems=outcome.problems(quiet=True))


def command(exported: Exported, tools: Tools) -> CheckReport:
    """The options of the command line."""
    try:
        argv = grammars.shell_words(exported.text)
    except ValueError as error:
        return CheckReport(by=("our reading of the shell's grammar",), problems=(str(error),))
    return words(argv[1:], tools)


def environment(exported: Exported, tools: Tools) -> CheckReport:
    """The variables: llama-server reads them before its arguments."""
    own = "our reading of environment files"
    try:
        variables = grammars.env_file(exported.text)
    except ValueError as error:
        return CheckReport(by=(own,), problems=(str(error),))
    known = {name.partition("=")[0] for name in targets.llama_server_options().values() if name}
    problems = tuple(f"llama-server reads no variable {name}" for name in variables if name not in known)
    if tools.llama_server is None or problems:
        return CheckReport(by=(own, "our table of llama-server's variables"), problems=problems)
    return _report(tools.llama_server, version_with(tools.llama_server, [], variables), own)


def words(argv: Sequence[str], tools: Tools) -> CheckReport:
    """The options of a command line, without the program: by llama-server if it is here, otherwise by our table."""
    if tools.llama_server is None:
        known = targets.llama_server_options()
        unknown = [word for word in argv if word.startswith("--") and word not in known]
        problems = tuple(f"llama-server has no option {word}" for word in unknown)
        return CheckReport(by=("our table of llama-server's options",), problems=problems)
    return _report(tools.llama_server, version_with(tools.llama_server, argv))


def version_with(engine: Engine, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Outcome:
    """What llama-server says of these options and variables; nothing is loaded."""
    own = engine_environment(engine, os.environ)
    return ask([engine.path, *argv, "--version"], env={**own, **(env or {})})


def _report(engine: Engine, outcome: Outcome, *also: str) -> CheckReport:
    told = [line.strip() for line in outcome.stderr.splitlines() if "deprecated" in line or "removed" in line]
    return CheckReport(by=(*also, f"{name_of(engine)}'s own parser"), problems=(*outcome.problems(), *told))


def name_of(engine: Engine) -> str:
    """The engine with its version."""
    return f"llama-server {engine.version or engine.build or ''}".strip()
