"""An end to requests that never end: httpx bounds each wait for the next byte, not the whole answer."""

import contextlib
import socket
import threading
from collections.abc import Generator, Mapping
from typing import Any


class Watchdog:
    """Hangs up on a server when a request has taken too long, even one that drips its headers byte by byte."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._socket: socket.socket | None = None
        self.fired = False

    def trace(self, event: str, facts: Mapping[str, Any]) -> None:
        """Learn the socket of a connection; goes into a request's `trace` extension (httpcore)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = facts["return_value"].get_extra_info("socket")

    @contextlib.contextmanager
    def within(self, seconds: float) -> Generator[None, None, None]:
        """Hang up if the block takes longer; the read it waits in then fails, and `fired` is set."""
        self.fired = False
        timer = threading.Timer(seconds, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        self.fired = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
