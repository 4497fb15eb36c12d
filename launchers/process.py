"""Engine processes: start in a session of their own, wait until they answer, stop without leaving anything.

An engine dies with the glmplan that started it, whatever kills that (`keeper`).
"""

import contextlib
import fnmatch
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from glmplan.errors import EngineError, EngineNotFound, EngineNotHealthy
from glmplan.full_disk import naming
from glmplan.launchers import failures, health, identity, logs, port
from glmplan.launchers.first_token import FirstToken
from glmplan.launchers.launch import Launch
from glmplan.noun import noun
from glmplan.paths import write_atomic
from glmplan.units import MIB

GRACE_S: Final = 10.0
ASK_AGAIN_S: Final = 2.0
WHILE_LOADING: Final = "while loading"
WHILE_SERVING: Final = "while serving"
_FIXED_DEADLINE_S: Final = 120.0
_SLOWEST_DISK_BYTES_PER_S: Final = 50 * MIB
_LISTS: Final = ("LIBRARY_PATH", "_TUNABLES")  # variables that hold several values between colons
_POLL_S: Final = 0.05
_WATCH_S: Final = 5.0
_TAIL_LINES: Final = 80
_READY_LINES: Final = 1000
_KEEPER: Final = Path(__file__).with_name("keeper.py")


@noun
class LoadProgress:
    """How far a start has come; `resident_bytes` approaches `model_bytes` while a file is read."""

    elapsed_s: float
    deadline_s: float
    status: str
    resident_bytes: int | None
    model_bytes: int


def load_deadline_s(model_bytes: int) -> float:
    """How long a model of this size may take to load: two minutes, and the file at 50 MiB/s."""
    return _FIXED_DEADLINE_S + model_bytes / _SLOWEST_DISK_BYTES_PER_S


class EngineProcess:
    """A started engine; as a context manager it is stopped on leaving."""

    def __init__(self, launch: Launch, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        """Keep what is needed to watch and stop `popen`."""
        self.launch = launch
        self.log = log
        self.identity = identity.identify(popen.pid)
        self._popen = popen
        self._oom_kills = identity.oom_kills()
        self._stayed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process number, also of its session and process group."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._popen.poll()

    def has_ended(self, *, within_s: float) -> bool:
        """Whether it ends by itself within that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=within_s)
        return self._popen.poll() is not None

    def wait(self) -> None:
        """Wait until it ends by itself, or says that its model is lost."""
        launch = self.launch
        while launch.listens_before_it_loads and not self.has_ended(within_s=_WATCH_S):
            if health.ask(launch.endpoint, launch.health_path).readiness is health.Readiness.LOADING:
                self.end_without_model()
        self._popen.wait()

    def end_without_model(self) -> None:
        """End a process that has stayed without its model."""
        self._stayed = True
        self.stop()

    def end_out_of_memory(self) -> bool:
        """End a process that says memory ran out and stays, as Python servers do; False where it does not say so."""
        if failures.classify(None, logs.tail(self.log, _TAIL_LINES)).cause is not failures.Cause.OUT_OF_MEMORY:
            return False
        self._stayed = True
        self.stop()
        return True

    def failed(self, when: str) -> EngineError:
        """The error of an engine that has ended by itself."""
        lines = logs.tail(self.log, _TAIL_LINES)
        now = identity.oom_kills()
        kills = None if now is None or self._oom_kills is None else now - self._oom_kills
        code = self._popen.wait()
        if self.launch.has_children:
            signal_group(self.pid, signal.SIGKILL)
        failure = failures.classify(None if self._stayed else code, lines, oom_kills=kills)
        endpoint = self.launch.endpoint
        if failure.cause is failures.Cause.PORT_TAKEN:
            return port.taken(endpoint.host, endpoint.port)
        return failures.exited(failure, lines, log=str(self.log), when=when)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """End it and everything in its process group: ask, interrupt, then kill after `grace_s` seconds.

        llama-server and uvicorn wait for open streams after SIGTERM; an interrupt after it ends them at once.
        """
        try:
            first_s = min(ASK_AGAIN_S, grace_s)
            for number, patience_s in ((signal.SIGTERM, first_s), (signal.SIGINT, grace_s - first_s)):
                if self._popen.poll() is None:
                    signal_group(self.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._popen.wait(timeout=patience_s)
        finally:  # also when a second Ctrl-C cuts the wait short
            signal_group(self.pid, signal.SIGKILL)
            self._popen.wait()
            if self._popen.stdin is not None:
                self._popen.stdin.close()


def start(launch: Launch, *, log: Path | None = None) -> EngineProcess:
    """Start `launch`, after proving that its port is free.

    Call from the main thread: on Linux the engine is tied to the thread that started it.

    Args:
        launch: what to start.
        log: the log to go on writing to; a new one without it.

    Raises:
        OSError: the log or a configuration file cannot be written.
        PortTaken: somebody listens on its port.
        EngineNotFound: its program is not there.
    """
    if not launch.joins:
        port.require_free(launch.endpoint.host, launch.endpoint.port)
    for file in launch.files:
        write_atomic(Path(file.path), file.text, mode=0o600)
    log = log or logs.new_log(launch.endpoint.port)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with naming(log), log.open("ab") as stream:
        stream.write(f"{logs.STARTED}{stamp} {shlex.join(launch.argv)}\n".encode())
        stream.flush()
        try:
            popen = subprocess.Popen(
                _kept(launch),
                stdin=subprocess.PIPE if _keeper_mode(launch) == "watch" else subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=child_environment(launch, os.environ),
                start_new_session=True,
            )
        except OSError as error:
            message = f"cannot start {launch.argv[0]}: {error.strerror}"
            raise EngineNotFound(message, hint="glmplan detect shows the engines found") from error
    return EngineProcess(launch, popen, log)


def wait_until_healthy(
    engine: EngineProcess, *, on_progress: Callable[[LoadProgress], None], deadline_s: float | None = None
) -> float:
    """Wait until the engine answers; how long that took, in milliseconds.

    Raises:
        EngineExited: it ended instead, with the reason its log gives.
        PortTaken: somebody else got the port while it loaded.
        EngineNotHealthy: it did not answer in time; it is left running for the caller to stop.
    """
    launch = engine.launch
    limit_s = deadline_s if deadline_s is not None else load_deadline_s(launch.model_bytes)
    began = time.monotonic()
    first_token: FirstToken | None = None
    while True:
        if engine.poll() is not None:
            raise engine.failed(WHILE_LOADING)
        answer = health.ask(launch.endpoint, launch.health_path)
        elapsed_s = time.monotonic() - began
        listens = answer.readiness is health.Readiness.READY  # which some do before their model is loaded
        if listens and _is_the_engine_that_answers(engine):
            if not launch.listens_before_it_loads or (first_token is not None and first_token.came):
                return elapsed_s * 1000
            first_token = first_token or FirstToken(launch.endpoint, patience_s=limit_s)
        if launch.listens_before_it_loads and _has_lost_its_model(answer, first_token):
            engine.end_without_model()
            raise engine.failed(WHILE_LOADING)
        if elapsed_s > limit_s:
            raise _not_healthy(engine, answer, elapsed_s)
        on_progress(
            LoadProgress(
                elapsed_s=elapsed_s,
                deadline_s=limit_s,
                status=(health.Readiness.LOADING if listens else answer.readiness).value,
                resident_bytes=None if launch.joins else identity.resident_bytes(engine.pid),
                model_bytes=launch.model_bytes,
            )
        )
        time.sleep(min(_POLL_S + elapsed_s / 20, 0.5))


def _is_the_engine_that_answers(engine: EngineProcess) -> bool:
    launch = engine.launch
    if launch.ready_line is not None:
        return launch.ready_line in logs.tail(engine.log, _READY_LINES)
    return identity.listens_on(engine.pid, launch.endpoint.port)


def _has_lost_its_model(answer: health.Health, first_token: FirstToken | None) -> bool:
    refused = first_token is not None and first_token.refused is not None
    return refused or answer.readiness is health.Readiness.LOADING


def _not_healthy(engine: EngineProcess, answer: health.Health, elapsed_s: float) -> EngineNotHealthy:
    said = f"HTTP {answer.status} {answer.text}".strip() if answer.status else "no answer"
    message = f"the engine did not become ready within {elapsed_s:.0f} s; its last answer: {said}"
    return EngineNotHealthy(
        message,
        hint=f"give it longer with --timeout SECONDS; the log is {engine.log}",
        facts={"waited_s": round(elapsed_s, 1), "status": answer.status, "log": str(engine.log)},
    )


def child_environment(launch: Launch, parent: Mapping[str, str]) -> dict[str, str]:
    """The environment of the engine: the parent's, without what would change the plan behind its back."""
    environment = {
        name: value
        for name, value in parent.items()
        if not any(fnmatch.fnmatchcase(name.upper(), pattern) for pattern in launch.drop_env)
    }
    for name, value in launch.env:
        inherited = environment.get(name) if name.endswith(_LISTS) else None
        environment[name] = f"{value}{os.pathsep}{inherited}" if inherited else value
    environment.setdefault("GGML_NO_BACKTRACE", "1")  # an engine that aborts must not wait for a debugger
    key = launch.endpoint.api_key() if launch.key_env else None
    if launch.key_env and key:
        environment[launch.key_env] = key
    return environment


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _keeper_mode(launch: Launch) -> str:
    return "die-with" if sys.platform == "linux" and not launch.has_children else "watch"


def _kept(launch: Launch) -> tuple[str, ...]:
    mode = _keeper_mode(launch)
    return (sys.executable, "-I", "-S", str(_KEEPER), mode, str(os.getpid()), "--", *launch.argv)
