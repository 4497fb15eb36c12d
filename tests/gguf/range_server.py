"""A real HTTP server on this machine that serves a file of any length by ranges, and can misbehave in many ways."""

import contextlib
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import Request, listening

PIECE = 65_536


@dataclass
class RangeServer:
    """A file of `size_bytes`: `content`, then zeros. `fault` picks a way to misbehave, `redirects` maps paths."""

    content: bytes
    size_bytes: int
    fault: str = ""
    redirects: dict[str, str] = field(default_factory=dict[str, str])
    documents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    seen: list[Request] = field(default_factory=list[Request])
    stop: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent_bytes(self) -> int:
        """Bytes of bodies sent so far."""
        return sum(seen.sent_bytes for seen in self.seen)

    def block(self, start: int, end: int) -> bytes:
        """Bytes of the file from `start` to before `end`."""
        found = self.content[start:end]
        return found + bytes(end - start - len(found))


@contextlib.contextmanager
def serving(content: bytes, *, size_bytes: int | None = None, fault: str = "") -> Generator[RangeServer, None, None]:
    """A running server, stopped at the end."""
    state = RangeServer(content, len(content) if size_bytes is None else size_bytes, fault)

    class Handler(_Handler):
        server_state = state

    with listening(Handler) as state.port:
        try:
            yield state
        finally:
            state.stop.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: RangeServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Keep quiet."""

    def do_GET(self) -> None:
        state = self.server_state
        seen = Request(self.command, self.path, dict(self.headers))
        state.seen.append(seen)
        with contextlib.suppress(ConnectionError):
            if self.path in state.redirects:
                self._answer(302, {"Location": state.redirects[self.path], "Content-Length": "0"})
            elif self.path in state.documents:
                body = state.documents[self.path]
                self._answer(200, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
                self.wfile.write(body)
            else:
                self._file(seen)

    def _file(self, seen: Request) -> None:
        state = self.server_state
        number = sum(1 for other in state.seen if other.path == self.path)
        special = getattr(self, f"_fault_{state.fault}", None)
        if special is not None and special(seen, number):
            return
        start, end = self._asked(seen)
        if start >= state.size_bytes:
            self._answer(416, {"Content-Range": f"bytes */{state.size_bytes}", "Content-Length": "0"})
            return
        self._part(seen, start, end)

    def _asked(self, seen: Request) -> tuple[int, int]:
        """Start and end (exclusive) of the range asked for."""
        first, _, last = (seen.range or "bytes=0-").removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else self.server_state.size_bytes
        return int(first), min(end, self.server_state.size_bytes)

    def _part(self, seen: Request, start: int, end: int, **changes: str | None) -> None:
        headers: dict[str, str | None] = {
            "Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}",
            "Content-Length": str(end - start),
            "Content-Type": "application/octet-stream",
            "ETag": '"v1"',
        }
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        self._answer(206, headers)
        self._send(seen, start, end)

    def _send(self, seen: Request, start: int, end: int) -> None:
        for at in range(start, end, PIECE):
            if self.server_state.stop.is_set():
                return
            piece = self.server_state.block(at, min(at + PIECE, end))
            self.wfile.write(piece)
            seen.sent_bytes += len(piece)

    def _answer(self, status: int, headers: Mapping[str, str | None]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _hang_up(self) -> None:
        self.close_connection = True

    # Faults: True when the request is dealt with.

    def _fault_ignores_range(self, seen: Request, _number: int) -> bool:
        size = self.server_state.size_bytes
        self._answer(200, {"Content-Length": str(size)})
        self._send(seen, 0, size)
        return True

    def _fault_ignores_range_and_drops(self, seen: Request, number: int) -> bool:
        size = self.server_state.size_bytes
        self._answer(200, {"Content-Length": str(size)})
        self._send(seen, 0, size if number > 1 else 700_000)
        self._hang_up()
        return True

    def _fault_drops(self, seen: Request, _number: int) -> bool:
        """Announces everything, sends 300,000 bytes at most, hangs up."""
        start, end = self._asked(seen)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}"}
        self._answer(206, headers | {"Content-Length": str(end - start)})
        self._send(seen, start, min(end, start + 300_000))
        self._hang_up()
        return True

    def _fault_always_drops(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}"}
        self._answer(206, headers | {"Content-Length": str(end - start)})
        self._hang_up()
        return True

    def _fault_smaller_parts(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        self._part(seen, start, min(end, start + 400_000))
        return True

    def _fault_stalls(self, seen: Request, number: int) -> bool:
        start, end = self._asked(seen)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}"}
        self._answer(206, headers | {"Content-Length": str(end - start)})
        if number == 1:
            self._send(seen, start, start + 1000)
        self.server_state.stop.wait(30)
        self._hang_up()
        return True

    def _fault_silent(self, _seen: Request, _number: int) -> bool:
        self.server_state.stop.wait(30)
        self._hang_up()
        return True

    def _fault_drips(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}"}
        self._answer(206, headers | {"Content-Length": str(end - start)})
        while not self.server_state.stop.wait(0.02):
            self.wfile.write(b"G")
            self.wfile.flush()
        return True

    def _fault_drips_headers(self, _seen: Request, _number: int) -> bool:
        self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
        while not self.server_state.stop.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()
        return True

    def _fault_web_page(self, _seen: Request, _number: int) -> bool:
        body = b"<!DOCTYPE html><html>log in</html>"
        self._answer(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))})
        self.wfile.write(body)
        return True

    def _fault_web_page_in_part(self, seen: Request, _number: int) -> bool:
        self._part(seen, *self._asked(seen), Content_Type="text/html")
        return True

    def _fault_unlabelled_web_page(self, _seen: Request, _number: int) -> bool:
        body = b"<!DOCTYPE html><html>log in</html>"
        self._answer(200, {"Content-Length": str(len(body))})
        self.wfile.write(body)
        return True

    def _fault_wrong_start(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        self._part(seen, start + 7, end, Content_Length=str(end - start - 7))
        return True

    def _fault_no_content_range(self, seen: Request, _number: int) -> bool:
        self._part(seen, *self._asked(seen), Content_Range=None)
        return True

    def _fault_broken_content_range(self, seen: Request, _number: int) -> bool:
        self._part(seen, *self._asked(seen), Content_Range="bytes 5-2/1")
        return True

    def _fault_changing_length(self, seen: Request, number: int) -> bool:
        start, end = self._asked(seen)
        self._part(seen, start, end, Content_Range=f"bytes {start}-{end - 1}/{self.server_state.size_bytes + number}")
        return True

    def _fault_changing_file(self, seen: Request, number: int) -> bool:
        self._part(seen, *self._asked(seen), ETag=f'"v{number}"')
        return True

    def _fault_unknown_length(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        self._part(seen, start, end, Content_Range=f"bytes {start}-{end - 1}/*")
        return True

    def _fault_compressed(self, seen: Request, _number: int) -> bool:
        self._part(seen, *self._asked(seen), Content_Encoding="gzip")
        return True

    def _fault_multipart(self, seen: Request, _number: int) -> bool:
        self._part(seen, *self._asked(seen), Content_Type="multipart/byteranges; boundary=x")
        return True

    def _fault_longer_body(self, seen: Request, _number: int) -> bool:
        start, end = self._asked(seen)
        self._answer(206, {"Content-Range": f"bytes {start}-{end - 1}/{self.server_state.size_bytes}"})
        self._send(seen, start, end + 5_000_000)
        self._hang_up()
        return True

    def _fault_busy_at_first(self, _seen: Request, number: int) -> bool:
        if number > 2:
            return False
        self._answer(503, {"Retry-After": "0", "Content-Length": "0"})
        return True

    def _fault_busy(self, _seen: Request, _number: int) -> bool:
        self._answer(503, {"Content-Length": "0"})
        return True

    def _fault_expires(self, _seen: Request, number: int) -> bool:
        """A signed address that is good for one request only, until it is asked for anew."""
        fresh = self.server_state.seen[-2].path in self.server_state.redirects if number > 1 else True
        if fresh:
            return False
        self._answer(403, {"Content-Length": "0"})
        return True

    def _fault_status_401(self, _seen: Request, _number: int) -> bool:
        self._answer(401, {"Content-Length": "0"})
        return True

    def _fault_status_404(self, _seen: Request, _number: int) -> bool:
        self._answer(404, {"Content-Length": "0"})
        return True
