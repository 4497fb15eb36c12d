"""`glmplan status`, `logs` and `stop`: the engines that glmplan has started."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.errors import InputError

if TYPE_CHECKING:
    from glmplan.launchers.records import RunRecord
    from glmplan.running import EngineStatus

_PORT = typer.Option("--port", help="Which engine, by its port; needed when several run.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/status/1).")] = False,
) -> None:
    """List the engines that glmplan has started: those that run, and those it has given up."""
    from glmplan.launchers import records
    from glmplan.running import StatusReport

    report = StatusReport(engines=tuple(_status_of(record) for record in records.known()))
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(report) + "\n")
        return
    from glmplan.render.run import status_lines

    sys.stdout.write("\n".join(status_lines(report.engines)) + "\n")


def logs(
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as the log grows, until the engine ends.")
    ] = False,
    port: Annotated[int | None, _PORT] = None,
) -> None:
    """Print the log of a running engine, or of the last one that ran."""
    from glmplan.launchers import logs as log_files
    from glmplan.launchers import records

    running = records.running()
    if running or port is not None:
        record = records.choose(running or records.known(), port)
        texts = log_files.follow(Path(record.log), lambda: follow and records.is_running(record))
    else:
        newest = log_files.newest_log()
        if newest is None:
            message = "there is no log: glmplan has started no engine yet"
            raise InputError(message, hint="glmplan run")
        texts = log_files.follow(newest, lambda: False)
    for text in texts:
        sys.stdout.write(text)
        sys.stdout.flush()


def stop(
    port: Annotated[int | None, _PORT] = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop all of them.")] = False,
) -> None:
    """Stop an engine that glmplan has started, and forget one it has given up: asked, then killed after ten seconds."""
    from glmplan.launchers import records

    known = records.known()
    chosen = known if everything else (records.choose(records.running() or known, port),)
    for record in chosen:
        records.stop(record)
        what = "forgot" if record.gave_up else "stopped"
        sys.stderr.write(f"{what} {record.engine} on {record.endpoint.url} (process {record.process.pid})\n")


def _status_of(record: "RunRecord") -> "EngineStatus":
    from glmplan.launchers import identity
    from glmplan.running import EngineStatus

    alive = identity.is_alive(record.process)
    return EngineStatus(
        url=record.endpoint.url,
        port=record.endpoint.port,
        state=_state_of(record, alive=alive),
        model=record.model,
        quantization=record.quantization,
        synthetic=record.synthetic,
        engine=record.engine,
        engine_version=record.engine_version,
        n_ctx=record.n_ctx,
        pid=record.process.pid if alive else None,
        detached=record.detached,
        started_at=record.started_at,
        restarts=record.restarts,
        step_downs=record.step_downs,
        last_reason=record.last_reason,
        resident_bytes=None if record.joins else identity.resident_bytes(record.process.pid),
        log=record.log,
    )


def _state_of(record: "RunRecord", *, alive: bool) -> str:
    from glmplan.launchers import health

    if alive:
        return health.ask(record.endpoint, record.health_path).readiness.value
    return "gave-up" if record.gave_up else "restarting"
