"""Going on in the background: the command a person typed waits for its copy, until that says it has an answer.

`launchers/keeper.py` ties an engine to its starter; here the starter itself leaves the terminal. The copy is made
before anything else is: it alone plans, launches and watches, and it ends if the waiting one goes away too early.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final, NoReturn

_READY: Final = b"+"
_EXIT_INTERRUPTED: Final = 130


class Background:
    """The copy's side: `leave` lets the waiting one go."""

    def __init__(self, waiting: socket.socket) -> None:
        """Watch for a waiting process that ends before its time."""
        self._waiting = waiting
        self._left = False
        threading.Thread(target=self._end_with_it, daemon=True).start()

    def leave(self, log: Path) -> None:
        """Turn standard output and error to the end of `log`, and let the waiting process end with status 0."""
        sys.stdout.flush()
        sys.stderr.flush()
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        target = os.open(log, os.O_WRONLY | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(target, descriptor)
        os.close(target)
        self._left = True
        with contextlib.suppress(OSError):  # it was killed this moment: the engine stays, as it was asked to
            self._waiting.sendall(_READY)

    def _end_with_it(self) -> None:
        with contextlib.suppress(OSError):
            self._waiting.recv(1)
        if not self._left:
            os.kill(os.getpid(), signal.SIGTERM)


def go() -> Background:
    """Return in a copy of this process, in a session of its own; this one ends as the copy says.

    Call before any thread is started, and before anything is held that must not exist twice.

    Raises:
        SystemExit: in the waiting process, with status 0 once the copy has left, or with the copy's own status.
    """
    ours, theirs = socket.socketpair()
    copy = os.fork()
    if copy != 0:
        theirs.close()
        _wait(copy, ours)
    ours.close()
    os.setsid()
    return Background(theirs)


def _wait(copy: int, channel: socket.socket) -> NoReturn:
    try:
        ready = channel.recv(1)
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(copy, signal.SIGINT)
        os.waitpid(copy, 0)
        raise SystemExit(_EXIT_INTERRUPTED) from None
    if ready == _READY:
        raise SystemExit(0)
    _, status = os.waitpid(copy, 0)
    code = os.waitstatus_to_exitcode(status)
    raise SystemExit(code if code >= 0 else 128 - code)
