"""`glmplan doctor`: what is wrong here, worst first, each with its fix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.units import format_bytes

if TYPE_CHECKING:
    from glmplan.diagnosis import Checkup, PortHolder, SuspectFile
    from glmplan.machine import Machine
    from glmplan.plan import Plan
    from glmplan.profiles.host import Host


def doctor(
    plan: Annotated[str | None, typer.Argument(metavar="[PLAN]", help="Also check what this plan file needs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/doctor/1).")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to check.")] = 8080,
    replay: Annotated[Path | None, typer.Option(help="Examine a recorded machine instead of this one.")] = None,
    forget_reserves: Annotated[
        bool, typer.Option("--forget-reserves", help="Forget the memory that plans keep free since it ran out once.")
    ] = False,
) -> None:
    """Examine machine, engines, model files and settings; exit code 0 when nothing is wrong, else 1."""
    from glmplan.planner.diagnosis import diagnose

    if forget_reserves:
        _forget_reserves()
    diagnosis = diagnose(_checkup(plan, port, replay))
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(diagnosis))
    else:
        from glmplan.render.doctor import show_diagnosis

        show_diagnosis(diagnosis)
    if diagnosis.findings:
        raise typer.Exit(1)


def _checkup(plan_file: str | None, port: int, replay: Path | None) -> "Checkup":
    from glmplan.diagnosis import Checkup
    from glmplan.launchers import reserves
    from glmplan.profiles.detect import detect
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.configuration import read_configuration
    from glmplan.profiles.tape import TapeHost

    host: Host = LocalHost() if replay is None else TapeHost(replay)
    machine = detect(host)
    model_bytes = _model_bytes()
    plan = _plan(plan_file)
    return Checkup(
        machine=machine,
        configuration=read_configuration(host),
        port_holders=_port_holders(port) if replay is None else (),
        files=_suspect_files(machine) if replay is None else (),
        needed_bytes=_download_bytes(machine, plan, model_bytes),
        model_bytes=plan.model.file_bytes if plan else model_bytes,
        plan=plan,
        reserves=reserves.read() if replay is None else (),
    )


def _forget_reserves() -> None:
    from glmplan.launchers import reserves

    for reserve in reserves.forget():
        what = f"{reserve.engine} {reserve.build or ''}".strip()
        typer.echo(f"forgotten: {format_bytes(reserve.reserve_bytes)} on {reserve.device} for {what}", err=True)


def _plan(plan_file: str | None) -> "Plan | None":
    if plan_file is None:
        return None
    from glmplan.commands.launching import load_plan

    return load_plan(plan_file)


def _model_bytes() -> int:
    """Bytes of the first published file: the one most people start with."""
    from glmplan.profiles.recipes import model_facts

    return next(int(file["bytes"]) for file in model_facts()["published_files"] if file["bytes"])


def _download_bytes(machine: "Machine", plan: "Plan | None", model_bytes: int) -> int:
    """What would still have to be downloaded; 0 when a file is here."""
    if plan is not None:
        return 0 if Path(plan.model.file).is_file() else plan.model.file_bytes
    return 0 if machine.models else model_bytes


def _port_holders(port: int) -> "tuple[PortHolder, ...]":
    from glmplan.diagnosis import PortHolder
    from glmplan.errors import PortTaken
    from glmplan.launchers.port import listener, require_free

    try:
        require_free("127.0.0.1", port)
    except PortTaken:
        holder = listener(port)
        return (PortHolder(port=port, pid=holder.pid if holder else None, name=holder.name if holder else None),)
    return ()


def _suspect_files(machine: "Machine") -> "tuple[SuspectFile, ...]":
    """What the headers of the model files here are known for."""
    from glmplan.diagnosis import SuspectFile
    from glmplan.errors import GlmplanError
    from glmplan.inspection import WarningLevel
    from glmplan.profiles.gguf import inspect_model

    found: list[SuspectFile] = []
    for model in machine.models:
        path = Path(model.path)
        if not path.is_file():
            continue
        try:
            warnings = inspect_model(path).warnings
        except GlmplanError as error:
            found.append(SuspectFile(path=model.path, code="unreadable-file", message=error.message, hint=error.hint))
            continue
        found += [
            SuspectFile(path=model.path, code=warning.code, message=warning.message, hint=warning.hint)
            for warning in warnings
            if warning.level is WarningLevel.WARNING
        ]
    return tuple(found)
