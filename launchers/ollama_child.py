"""The child process of an Ollama launch: `python -m glmplan.launchers.ollama_child CONFIG.json`.

Starts a daemon if the configuration says so, creates the model, loads it, and keeps it loaded until SIGTERM or SIGINT;
then unloads it and stops the daemon, if it is its own. The model is loaded for a short while at a time and that is
renewed: a daemon that goes on without this process lets go of it by itself.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from glmplan.errors import EngineError
from glmplan.launchers.digests import sha256_of
from glmplan.launchers.ollama import READY_LINE
from glmplan.launchers.ollama_api import OllamaDaemon
from glmplan.units import format_bytes

_KEEP_ALIVE: Final = "2m"
_RENEW_S: Final = 30.0
_LOOK_S: Final = 2.0
_SILENT_LOOKS: Final = 3
_START_S: Final = 60.0
_POLL_S: Final = 0.1
_END_S: Final = 5.0


def main(argv: list[str]) -> int:
    """Serve the configuration file named by the only argument."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    config = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    daemon = OllamaDaemon(config["url"])
    try:
        with _served(config["serve"], daemon) as server, _loaded(daemon, config):
            _say(READY_LINE)
            _watch(daemon, server, config["create"]["model"])
    except (EngineError, OSError) as error:
        _say(str(error))
        return 1


@contextlib.contextmanager
def _served(program: str | None, daemon: OllamaDaemon) -> "Generator[subprocess.Popen[bytes] | None, None, None]":
    """A daemon that answers: `ollama serve` of our own where a program is named, stopped at the end.

    Raises:
        EngineError: it does not come up.
    """
    if program is None:
        yield None
        return
    server = subprocess.Popen([program, "serve"], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while daemon.version() is None:
            if server.poll() is not None or time.monotonic() > deadline:
                message = f"{program} serve did not come up at {daemon.url} (exit status {server.poll()})"
                raise EngineError(message)
            time.sleep(_POLL_S)
        yield server
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=_END_S)
        server.kill()


@contextlib.contextmanager
def _loaded(daemon: OllamaDaemon, config: dict[str, Any]) -> Generator[None, None, None]:
    """The model in memory; taken out at the end, also of a load that was cut short."""
    model = config["create"]["model"]
    _create(daemon, Path(config["file"]), config["create"])
    try:
        _say(f"loading {model}")
        daemon.load(model, keep_alive=_KEEP_ALIVE)
        yield
    finally:
        with contextlib.suppress(EngineError):
            daemon.unload(model)


def _create(daemon: OllamaDaemon, file: Path, body: dict[str, Any]) -> None:
    digest = f"sha256:{sha256_of(file)}"
    if not daemon.has_blob(digest):
        _say(f"copying {file.name}, {format_bytes(file.stat().st_size)}, into Ollama's store")
        daemon.push_blob(digest, file)
    daemon.create({**body, "files": {file.name: digest}})


def _watch(daemon: OllamaDaemon, server: "subprocess.Popen[bytes] | None", model: str) -> NoReturn:
    """Stay as long as the daemon lives and holds the model.

    Raises:
        EngineError: it does not any more.
    """
    renewed_at, silent = time.monotonic(), 0
    while True:
        time.sleep(_LOOK_S)
        if server is not None and server.poll() is not None:
            message = f"ollama serve ended (exit status {server.poll()})"
            raise EngineError(message)
        try:
            loaded = daemon.loaded(model)
        except EngineError:
            silent += 1
            if silent == _SILENT_LOOKS:
                raise
            continue
        silent = 0
        if loaded is None:
            message = f"Ollama at {daemon.url} has unloaded {model}: another model, or somebody else, took its place"
            raise EngineError(message)
        if time.monotonic() - renewed_at > _RENEW_S:
            daemon.load(model, keep_alive=_KEEP_ALIVE)
            renewed_at = time.monotonic()


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
