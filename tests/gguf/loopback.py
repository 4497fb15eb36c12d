"""HTTP servers of tests on the loopback address, each in a thread of its own, gone at the end."""

import contextlib
import sys
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Clients that hang up are what these tests are about: no traceback for them."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what is no hang-up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class Request:
    """What came in: method, path, headers, and how many body bytes went out for it."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent_bytes: int = 0

    @property
    def range(self) -> str | None:
        """Its Range header."""
        return self.headers.get("Range")


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Generator[int]:
    """The port of a running server."""
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
