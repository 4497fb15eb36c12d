"""Units, agents and quadlets: judged by systemd, plutil and Podman where they are here, and by our own readers."""

import plistlib
from pathlib import Path
from typing import Any, Final

from glmplan.launchers.export.checks import grammars, llama_server
from glmplan.launchers.export.checks.report import CheckReport, Tools, as_file, ask
from glmplan.launchers.export.exported import Exported

_QUADLET: Final = "/usr/libexec/podman/quadlet"
_CREDENTIALS: Final = {"d": "/run/credentials"}
# podman-systemd.unit(5), Podman 4.4 to 5.5: the keys we use.
_QUADLET_KEYS: Final = {
    "Unit": {"Description", "After"},
    "Container": {
        "Image", "AddDevice", "SecurityLabelDisable", "Volume", "Ulimit", "Environment", "PublishPort", "Exec",
        "HealthCmd", "HealthInterval", "HealthStartPeriod",
    },
    "Service": {"Restart", "TimeoutStartSec"},
    "Install": {"WantedBy"},
}  # fmt: skip


def systemd(exported: Exported, tools: Tools) -> CheckReport:
    """systemd-analyze verify if it is here; the command by llama-server."""
    own = "our reading of unit files"
    try:
        sections = grammars.unit(exported.text)
        command = dict(sections["Service"])["ExecStart"]
        argv = grammars.unit_words(command, _CREDENTIALS)
    except (ValueError, KeyError) as error:
        return CheckReport(by=(own,), problems=(f"no unit: {error}",))
    judged = llama_server.words(argv[1:], tools)
    analyze = tools.program("systemd-analyze")
    if analyze is None:
        return CheckReport(by=(own, *judged.by), problems=judged.problems)
    personal = ("WantedBy", "default.target") in sections.get("Install", [])
    verified = _verify(analyze, exported, argv[0], personal=personal)
    return CheckReport(by=("systemd-analyze verify", *judged.by), problems=(*verified, *judged.problems))


def _verify(analyze: str, exported: Exported, server: str, *, personal: bool) -> tuple[str, ...]:
    """What systemd says of the unit; a program that is not on this machine is no fault of the unit."""
    text = exported.text
    if not Path(server).is_file():
        text = "\n".join("ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in text.splitlines())
    with as_file(Exported(text=text, suffix=".service"), "glmplan-check.service") as path:
        outcome = ask([analyze, *(("--user",) if personal else ()), "verify", str(path)])
    ours = [line for line in outcome.stderr.splitlines() if "glmplan-check" in line]
    return tuple(ours) if ours or outcome.returncode == 0 else outcome.problems()


def launchd(exported: Exported, tools: Tools) -> CheckReport:
    """Plutil if it is here, Python's own reader of property lists, and llama-server for the command."""
    by: list[str] = ["Python's reader of property lists"]
    try:
        document: dict[str, Any] = plistlib.loads(exported.text.encode())
        argv = [str(word) for word in document["ProgramArguments"]]
    except (plistlib.InvalidFileException, ValueError, KeyError, Exception) as error:
        return CheckReport(by=tuple(by), problems=(f"no agent: {error}",))
    judged = llama_server.words(argv[1:], tools)
    problems = list(judged.problems)
    if plutil := tools.program("plutil"):
        by.append("plutil -lint")
        with as_file(exported, "agent.plist") as path:
            problems += ask([plutil, "-lint", str(path)]).problems()
    return CheckReport(by=(*by, *judged.by), problems=tuple(problems))


def quadlet(exported: Exported, tools: Tools) -> CheckReport:
    """Podman's generator if it is here, our table of its keys, and llama-server for the command."""
    by: list[str] = ["our reading of quadlets"]
    try:
        sections = grammars.unit(exported.text)
        argv = grammars.unit_words(dict(sections["Container"])["Exec"])
    except (ValueError, KeyError) as error:
        return CheckReport(by=tuple(by), problems=(f"no quadlet: {error}",))
    problems = [
        f"no key {name} in section {section}"
        for section, pairs in sections.items()
        for name, _ in pairs
        if name not in _QUADLET_KEYS.get(section, set[str]())
    ]
    if Path(_QUADLET).is_file():
        by.append("Podman's quadlet generator")
        with as_file(exported, "glmplan-check.container") as path:
            env = {"QUADLET_UNIT_DIRS": str(path.parent)}
            problems += ask([_QUADLET, "-dryrun", "-user"], env=env).problems()
    judged = llama_server.words(argv, tools)
    return CheckReport(by=(*by, *judged.by), problems=(*problems, *judged.problems))
