"""Which engines run: one record per port in the state folder, believed only while its process lives.

A port is held by an exclusive lock for as long as the glmplan that launches on it lives, so that two launches at
once are told apart before either loads a model.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from glmplan import jsonio
from glmplan.errors import InputError
from glmplan.launchers import port as ports
from glmplan.launchers.identity import ProcessIdentity, is_alive
from glmplan.launchers.launch import Endpoint
from glmplan.launchers.process import ASK_AGAIN_S, GRACE_S, signal_group
from glmplan.noun import noun
from glmplan.paths import state_folder, write_atomic

_POLL_S: Final = 0.05
_SUPERVISOR_EXTRA_S: Final = 5.0


@noun
class RunRecord:
    """One launched engine; `supervisor` is the glmplan that watches it, `detached` when that is in the background.

    `plan_file` is a copy of the plan it serves. No secret is in it: the key stays in its own file.
    `last_reason` is why it was started again the last time, or with `gave_up` why not any more.
    `joins`: a server that runs anyway does the work, `process` only keeps the model there.
    `application` is the Ray Serve application it is a replica of, None for an engine of its own.
    """

    endpoint: Endpoint
    engine: str
    engine_version: str | None
    process: ProcessIdentity
    supervisor: ProcessIdentity
    detached: bool
    started_at: str
    model: str
    quantization: str
    synthetic: bool
    n_ctx: int
    log: str
    health_path: str
    timings: bool
    plan_file: str | None = None
    restarts: int = 0
    step_downs: int = 0
    last_reason: str | None = None
    gave_up: bool = False
    application: str | None = None
    joins: bool = False


def folder() -> Path:
    """Where records, plan copies, engine configurations and locks live."""
    return state_folder() / "runs"


def write(record: RunRecord) -> None:
    """Remember a running engine."""
    write_atomic(_path(record.endpoint.port), jsonio.dumps(record), mode=0o600)


def forget(record: RunRecord) -> None:
    """Remove what is remembered of an engine, a key made for it included."""
    port = record.endpoint.port
    _path(port).unlink(missing_ok=True)
    plan_copy(port).unlink(missing_ok=True)
    _drop_key(record.endpoint)


@contextlib.contextmanager
def key_while(endpoint: Endpoint) -> Generator[None, None, None]:
    """Remove a key made for `endpoint` when the block ends."""
    try:
        yield
    finally:
        _drop_key(endpoint)


def new_key_file() -> Path:
    """A path for an API key that lives as long as its engine."""
    return folder() / f"{secrets.token_hex(8)}.key"


def plan_copy(port: int) -> Path:
    """Where the plan served on `port` is copied to."""
    return folder() / f"{port}.plan.json"


def known() -> tuple[RunRecord, ...]:
    """Records of engines that live or were given up, by port; stale and unreadable ones are removed."""
    found: list[RunRecord] = []
    for path in sorted(folder().glob("*.run.json")):
        record = _read(path)
        if record is not None and (record.gave_up or is_running(record)):
            found.append(record)
        elif record is not None:
            forget(record)
        else:
            path.unlink(missing_ok=True)
    return tuple(sorted(found, key=lambda record: record.endpoint.port))


def running() -> tuple[RunRecord, ...]:
    """Records of engines that live or are about to be started again, by port."""
    return tuple(record for record in known() if is_running(record))


def is_running(record: RunRecord) -> bool:
    """Whether the engine lives, or the glmplan that starts it again."""
    return is_alive(record.process) or is_alive(record.supervisor)


def stop(record: RunRecord, grace_s: float = GRACE_S) -> None:
    """End an engine through the glmplan that watches it; without that one's help as `EngineProcess.stop`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if is_alive(record.supervisor) and not record.gave_up:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(record.supervisor.pid, number)
            _wait_for_end(record.supervisor, grace_s + _SUPERVISOR_EXTRA_S)
    for number, patience_s in (
        (signal.SIGTERM, ASK_AGAIN_S),
        (signal.SIGINT, grace_s - ASK_AGAIN_S),
        (signal.SIGKILL, grace_s),
    ):
        if is_alive(record.process):
            signal_group(record.process.pid, number)
            _wait_for_end(record.process, patience_s)
    forget(record)


@contextlib.contextmanager
def hold_port(host: str, port: int) -> Generator[None, None, None]:
    """Hold `port` against other launches while the block runs; the system lets go if this process dies.

    Raises:
        PortTaken: another glmplan launches on it.
    """
    folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder() / f"{port}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            there = _read(_path(port))
            who = f"{there.engine}, started by glmplan" if there else "another glmplan that launches on it"
            raise ports.taken(host, port, who=who) from error
        yield
    finally:
        os.close(descriptor)


def choose(records: tuple[RunRecord, ...], port: int | None) -> RunRecord:
    """The one engine meant by `port`, or the only one there is.

    Raises:
        InputError: none runs, or several do and `port` does not say which.
    """
    found = [record for record in records if port is None or record.endpoint.port == port]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(str(record.endpoint.port) for record in found)
        message = f"{len(found)} engines run, on ports {listed}"
        raise InputError(message, hint="say which: --port N")
    where = "" if port is None else f" on port {port}"
    message = f"no engine started by glmplan runs{where}"
    raise InputError(message, hint="glmplan run --detach starts one; glmplan status lists them")


def _drop_key(endpoint: Endpoint) -> None:
    """Remove the key file if it is one of ours; a user's own stays."""
    if endpoint.api_key_file is not None and Path(endpoint.api_key_file).parent == folder():
        Path(endpoint.api_key_file).unlink(missing_ok=True)


def _path(port: int) -> Path:
    return folder() / f"{port}.run.json"


def _read(path: Path) -> RunRecord | None:
    try:
        return jsonio.loads(RunRecord, path.read_text(encoding="utf-8"), origin=str(path))
    except (OSError, InputError):
        return None


def _wait_for_end(process: ProcessIdentity, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
