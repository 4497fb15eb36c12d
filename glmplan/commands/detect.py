"""`glmplan detect`: what this machine is."""

from pathlib import Path
from typing import Annotated

import typer

from glmplan.errors import GlmplanError, InputError
from glmplan.machine import Machine


def detect(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/machine/1).")] = False,
    record: Annotated[Path | None, typer.Option(help="Also record the machine to this folder, scrubbed.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Read a recorded machine instead of this one.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when anything could not be read.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Also ask py-cpuinfo for instruction sets (slow).")] = False,
) -> None:
    """Show this machine: processor, memory, GPUs, engines, model files, and what could not be read."""
    if record is not None and replay is not None:
        message = "--record and --replay exclude each other"
        raise InputError(message, hint="a tape is recorded already")
    machine = _observe(record, replay, full=full)
    if strict and machine.notes and as_json:
        raise _not_known(machine)  # one document: the error, with the notes in it
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(machine))
    else:
        from glmplan.render.machine import show_machine

        show_machine(machine)
    if strict and machine.notes:
        raise _not_known(machine)


def _not_known(machine: Machine) -> GlmplanError:
    from glmplan.jsonio import to_jsonable

    fields = ", ".join(dict.fromkeys(note.field for note in machine.notes))
    return GlmplanError(
        f"{len(machine.notes)} notes with --strict, about {fields}",
        hint="leave --strict out to accept them",
        facts={"notes": to_jsonable(machine.notes)},
    )


def _observe(record: Path | None, replay: Path | None, *, full: bool) -> Machine:
    from glmplan.profiles.detect import detect as observe
    from glmplan.profiles.host import Host, LocalHost
    from glmplan.profiles.probes.cpuinfo import with_cpuinfo
    from glmplan.profiles.recording import record_to
    from glmplan.profiles.tape import Recorder, TapeHost

    recorder = Recorder(LocalHost()) if record is not None else None
    host: Host = recorder or (TapeHost(replay) if replay is not None else LocalHost())
    machine = observe(host)
    if full:
        machine = with_cpuinfo(host, machine)
    if record is not None and recorder is not None:
        record_to(recorder, record)
        typer.echo(f"recorded to {record}: read it before you share it", err=True)
    return machine
