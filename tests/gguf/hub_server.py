"""A model hub on this machine: /resolve/ addresses that redirect to a file store elsewhere, with faults on demand.

`faults` is a queue: each GET of the store takes one from its head and misbehaves so; an empty queue serves well.
"""

import contextlib
import email.utils
import hashlib
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from loopback import Request, listening

COMMIT = "46cbdf738df46cbdf738df46cbdf738df46cbdf7"
PIECE = 16_384


@dataclass
class HubServer:
    """Files by `org/name/path`. `hub_status` and `hub_headers` spoil the hub's own answers, `faults` the store's."""

    files: dict[str, bytes]
    commit: str = COMMIT
    faults: list[str] = field(default_factory=list[str])
    hub_status: list[int] = field(default_factory=list[int])
    hub_headers: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    retry_after: str | None = None
    asked: list[Request] = field(default_factory=list[Request])
    stored: list[Request] = field(default_factory=list[Request])
    stop: threading.Event = field(default_factory=threading.Event)
    drop_after_bytes: int = 100_000
    pause_s: float = 0.0
    hub_port: int = 0
    store_port: int = 0
    store_host: str = "localhost"

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def sent_bytes(self) -> int:
        """Bytes of files sent so far."""
        return sum(request.sent_bytes for request in self.stored)


@contextlib.contextmanager
def hub_serving(files: dict[str, bytes]) -> Generator[HubServer, None, None]:
    """A running hub and its store, both stopped at the end."""
    state = HubServer(files)

    class Hub(_HubHandler):
        server_state = state

    class Store(_StoreHandler):
        server_state = state

    with contextlib.ExitStack() as stack:
        state.hub_port = stack.enter_context(listening(Hub))
        state.store_port = stack.enter_context(listening(Store))
        try:
            yield state
        finally:
            state.stop.set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: HubServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        """Keep quiet."""

    def answer(self, status: int, headers: Mapping[str, str | None]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def refuse(self, status: int, **headers: str | None) -> None:
        self.answer(status, {"Content-Length": "0"} | {name.replace("_", "-"): headers[name] for name in headers})


class _HubHandler(_Handler):
    """The hub itself: describes files and sends the reader on to the store."""

    def do_HEAD(self) -> None:
        self._resolve("HEAD")

    def do_GET(self) -> None:
        self._resolve("GET")

    def _resolve(self, method: str) -> None:
        state = self.server_state
        state.asked.append(Request(method, self.path, dict(self.headers)))
        if state.hub_status:
            self.refuse(state.hub_status.pop(0), Retry_After=state.retry_after)
            return
        repo, _, rest = unquote(self.path).lstrip("/").partition("/resolve/")
        name = f"{repo}/{rest.partition('/')[2]}"
        content = state.files.get(name)
        if content is None:
            self.refuse(404, X_Error_Code="EntryNotFound")
            return
        headers: dict[str, str | None] = {
            "X-Repo-Commit": state.commit,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://{state.store_host}:{state.store_port}/{name}?signature=secret",
            "Content-Length": "0",
        }
        self.answer(302, headers | state.hub_headers)


class _StoreHandler(_Handler):
    """The store behind it: bytes, by ranges, with faults."""

    def do_GET(self) -> None:
        state = self.server_state
        request = Request("GET", self.path, dict(self.headers))
        state.stored.append(request)
        content = state.files[unquote(self.path).partition("?")[0].lstrip("/")]
        fault = state.faults.pop(0) if state.faults else "well"
        with contextlib.suppress(ConnectionError):
            getattr(self, f"_{fault}")(request, content)

    def _first(self, request: Request) -> int:
        return int((request.range or "bytes=0-").removeprefix("bytes=").partition("-")[0])

    def _begin(self, request: Request, content: bytes, **changes: str | None) -> int:
        """Headers of an honest answer, then where its body begins."""
        first, size = self._first(request), len(content)
        headers: dict[str, str | None] = {"Content-Length": str(size - first), "Content-Type": "binary/octet-stream"}
        if request.range:
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        self.answer(206 if request.range else 200, headers)
        return first

    def _send(self, request: Request, body: bytes) -> None:
        state = self.server_state
        for at in range(0, len(body), PIECE):
            if state.stop.is_set():
                return
            self.wfile.write(body[at : at + PIECE])
            request.sent_bytes += len(body[at : at + PIECE])
            if state.pause_s:
                time.sleep(state.pause_s)

    def _well(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content)
        self._send(request, content[first:])

    def _drops(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content)
        self._send(request, content[first : first + self.server_state.drop_after_bytes])
        self.close_connection = True

    def _hangs_up(self, _request: Request, _content: bytes) -> None:
        self.close_connection = True

    def _stalls(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content)
        self._send(request, content[first : first + 1000])
        self.server_state.stop.wait(30)
        self.close_connection = True

    def _drips(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content)
        for at in range(first, len(content)):
            if self.server_state.stop.wait(0.02):
                break
            self.wfile.write(content[at : at + 1])
            self.wfile.flush()
        self.close_connection = True

    def _drips_headers(self, _request: Request, _content: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not self.server_state.stop.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def _announces_less(self, request: Request, content: bytes) -> None:
        first = self._first(request)
        self._begin(request, content, Content_Length=str(max(len(content) - first - 5000, 0)))
        self._send(request, content[first : max(len(content) - 5000, first)])

    def _announces_more(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content, Content_Length=str(len(content) + 5000))
        self._send(request, content[first:])
        self.close_connection = True

    def _sends_more(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content, Content_Length=None, Connection="close")
        self._send(request, content[first:] + b"more" * 10_000)
        self.close_connection = True

    def _no_length(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content, Content_Length=None, Connection="close")
        self._send(request, content[first:])
        self.close_connection = True

    def _wrong_range(self, request: Request, content: bytes) -> None:
        first, size = self._first(request), len(content)
        start = min(first + 7, size - 1)
        self.answer(206, {"Content-Length": str(size - start), "Content-Range": f"bytes {start}-{size - 1}/{size}"})
        self._send(request, content[start:])

    def _wrong_total(self, request: Request, content: bytes) -> None:
        first, size = self._first(request), len(content)
        self.answer(206, {"Content-Length": str(size - first), "Content-Range": f"bytes {first}-{size}/{size + 1}"})
        self._send(request, content[first:])

    def _unsaid_range(self, request: Request, content: bytes) -> None:
        first = self._first(request)
        self.answer(206, {"Content-Length": str(len(content) - first)})
        self._send(request, content[first:])

    def _lying_range(self, request: Request, content: bytes) -> None:
        """Says it sends what was asked for and sends the beginning of the file."""
        first, size = self._first(request), len(content)
        self._begin(request, content)
        self._send(request, content[: size - first])

    def _ignores_range(self, request: Request, content: bytes) -> None:
        self.answer(200, {"Content-Length": str(len(content))})
        self._send(request, content)

    def _ignores_range_and_drops(self, request: Request, content: bytes) -> None:
        self.answer(200, {"Content-Length": str(len(content))})
        self._send(request, content[: self.server_state.drop_after_bytes])
        self.close_connection = True

    def _wrong_bytes(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content)
        self._send(request, bytes(byte ^ 1 for byte in content[first : first + 100]) + content[first + 100 :])

    def _web_page(self, _request: Request, _content: bytes) -> None:
        body = b"<!DOCTYPE html><html>log in</html>"
        self.answer(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _unlabelled_web_page(self, _request: Request, _content: bytes) -> None:
        body = b"<!DOCTYPE html><html>log in</html>"
        self.answer(200, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _compressed(self, request: Request, content: bytes) -> None:
        first = self._begin(request, content, Content_Encoding="gzip")
        self._send(request, content[first:])

    def _status_403(self, _request: Request, _content: bytes) -> None:
        self.refuse(403)

    def _status_416(self, _request: Request, _content: bytes) -> None:
        self.refuse(416)

    def _status_429(self, _request: Request, _content: bytes) -> None:
        self.refuse(429, Retry_After=self.server_state.retry_after)

    def _status_500(self, _request: Request, _content: bytes) -> None:
        self.refuse(500)


def http_date(seconds_from_now: float) -> str:
    """A date as Retry-After has it."""
    return email.utils.formatdate(time.time() + seconds_from_now, usegmt=True)
