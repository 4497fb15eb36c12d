"""A file on an HTTP server, read by ranges: a megabyte to begin with, then two at a time, never the whole file.

Works with any server that knows Range (RFC 9110, 14.2); one that does not is read from its start and hung up on.
"""

import time
from typing import TYPE_CHECKING, Final, NoReturn

from glmplan.errors import GgufError, InputError
from glmplan.http_requests import (
    Credentials,
    HttpLimits,
    checked_url,
    new_client,
    parse_content_range,
    refuse_web_page,
    refused,
    send,
    shown_url,
    too_slow,
    unreachable,
)
from glmplan.http_watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

FIRST_BLOCK_BYTES: Final = 2**20
NEXT_BLOCK_BYTES: Final = 2 * 2**20
MOST_BYTES: Final = 64 * 2**20
MOST_REQUESTS: Final = 200
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_EXPIRED: Final = frozenset({401, 403, 404, 410})
_LONGEST_PAUSE_S: Final = 5.0


class _Interrupted(Exception):
    """The answer broke off; `final` is what to raise when it does so again and again."""

    def __init__(self, final: InputError, *, pause_s: float | None = None, repeat: bool = True) -> None:
        super().__init__(final.message)
        self.final = final
        self.pause_s = pause_s
        self.repeat = repeat


class _WholeBody:
    """The body of a server that ignores Range, read forward only."""

    def __init__(self, response: "httpx.Response") -> None:
        self._response = response
        self._pieces: Iterator[bytes] = response.iter_raw()
        self._left = b""
        self.position = 0

    def next_piece(self, most: int) -> bytes:
        """Up to `most` further bytes; empty at the end."""
        piece = self._left or next(self._pieces, b"")
        taken, self._left = piece[:most], piece[most:]
        self.position += len(taken)
        return taken

    def close(self) -> None:
        """Hang up."""
        self._response.close()


class RangeSource:
    """A `ByteSource` over HTTP."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials | None = None,
        limits: HttpLimits | None = None,
        first_block_bytes: int = FIRST_BLOCK_BYTES,
    ) -> None:
        """Prepare to read `url`; nothing is sent yet.

        Raises:
            InputError: not an http(s) address.
        """
        self._url = checked_url(url)
        self._direct_url = self._url
        self._credentials = credentials
        self._limits = limits or HttpLimits()
        self._client = new_client(self._limits)
        self._block_bytes = first_block_bytes
        self._etag: str | None = None
        self._whole: _WholeBody | None = None
        self._watchdog = Watchdog()
        self.requests = 0
        self.name = shown_url(url)
        self.size_bytes: int | None = None
        self.bytes_read = 0

    def fetch(self, offset: int, at_least: int) -> bytes:
        """At least `at_least` bytes from `offset`, fewer at the end of the file.

        A connection that breaks is taken up again where it broke.

        Raises:
            InputError: the server cannot be reached, refuses, stalls or serves a web page.
            GgufError: its answers contradict each other.
        """
        want = max(at_least, self._block_bytes)
        self._block_bytes = NEXT_BLOCK_BYTES
        received = bytearray()
        failures = 0
        while len(received) < self._clamped(offset, want):
            before = len(received)
            try:
                if self._receive(offset + before, self._clamped(offset, want) - before, received):
                    break
            except _Interrupted as error:
                failures = 0 if len(received) > before else failures + 1
                if failures >= self._limits.attempts or not error.repeat:
                    raise error.final from error.__cause__
                pause_s = self._limits.backoff_s * 2**failures if error.pause_s is None else error.pause_s
                time.sleep(min(pause_s, _LONGEST_PAUSE_S))
        return bytes(received)

    def close(self) -> None:
        """Hang up and let go of the connections."""
        self._drop_whole()
        self._client.close()

    def _clamped(self, offset: int, want: int) -> int:
        return want if self.size_bytes is None else min(want, self.size_bytes - offset)

    def _receive(self, offset: int, want: int, received: bytearray) -> bool:
        """Append what one answer brings; True at the end of the file."""
        import httpx

        seconds = self._limits.slack_s + want / self._limits.slowest_bytes_per_s
        try:
            with self._watchdog.within(seconds):
                if self._whole is None or self._whole.position > offset:
                    self._drop_whole()
                    return self._request(offset, want, received)
                return self._continue_whole(self._whole, offset, want, received)
        except httpx.TransportError as error:
            self._drop_whole()
            if self._watchdog.fired:
                raise too_slow(self._url, self.bytes_read, seconds) from error
            repeat = self.bytes_read > 0 or not isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol))
            raise _Interrupted(unreachable(error, self._url), repeat=repeat) from error

    def _request(self, offset: int, want: int, received: bytearray) -> bool:
        self.requests += 1
        if self.requests > MOST_REQUESTS:
            self._contradict(f"{MOST_REQUESTS} requests brought no more than {self.bytes_read} bytes", offset)
        headers = {"Range": f"bytes={offset}-{offset + want - 1}"}
        response, url = send(self._client, self._direct_url, headers, self._credentials, self._watchdog)
        keep = False
        try:
            if response.status_code == 206:
                self._direct_url = url
                return self._partial(response, offset, want, received)
            if response.status_code == 200:
                self._direct_url = url
                keep = True
                return self._start_whole(response, offset, want, received)
            if response.status_code == 416:
                return self._beyond_end(response, offset)
            raise self._not_the_file(response)
        finally:
            if not keep:
                response.close()

    def _not_the_file(self, response: "httpx.Response") -> Exception:
        final = refused(response, self._url)
        if response.status_code in _EXPIRED and self._direct_url != self._url:
            # The signed address behind a redirect runs out after a while: ask the hub for a new one.
            self._direct_url = self._url
            return _Interrupted(final, pause_s=0.0)
        if response.status_code in _TRY_AGAIN:
            after = response.headers.get("Retry-After", "")
            return _Interrupted(final, pause_s=float(after) if after.isdecimal() else None)
        return final

    def _partial(self, response: "httpx.Response", offset: int, want: int, received: bytearray) -> bool:
        """The body of a 206, after its headers were held against what was asked and what was said before."""
        refuse_web_page(response, self._url)
        self._refuse_encoded(response, offset)
        stated = response.headers.get("Content-Range", "")
        part = parse_content_range(stated)
        if part is None or part.first is None or part.last is None:
            self._contradict(f"it answered 206 with Content-Range {stated!r}", offset)
        if part.first != offset:
            self._contradict(f"it was asked for bytes from {offset} and sent bytes from {part.first}", offset)
        self._remember(response, part.total, offset)
        expected = min(want, part.last - part.first + 1)
        got = 0
        for piece in response.iter_raw():  # as it arrives: a chunk size would wait for a dripping server
            taken = piece[: expected - got]
            self._keep(taken, offset + got, received)
            got += len(taken)
            if got >= expected:
                break
        if not got:
            message = f"{self.name} announced {expected} bytes and sent none"
            raise _Interrupted(InputError(message, hint="try again later or another mirror"))
        return False

    def _start_whole(self, response: "httpx.Response", offset: int, want: int, received: bytearray) -> bool:
        """The server ignores Range: take its body from the start, as far as needed."""
        self._whole = _WholeBody(response)
        refuse_web_page(response, self._url)
        self._refuse_encoded(response, offset)
        length = response.headers.get("Content-Length", "")
        self._remember(response, int(length) if length.isdecimal() and len(length) < 20 else None, offset)
        return self._continue_whole(self._whole, offset, want, received)

    def _continue_whole(self, whole: _WholeBody, offset: int, want: int, received: bytearray) -> bool:
        end = offset + want
        while whole.position < end:
            in_front = whole.position < offset
            piece = whole.next_piece((offset if in_front else end) - whole.position)
            if not piece:
                return True
            self._keep(piece, whole.position, bytearray() if in_front else received)
        return False

    def _beyond_end(self, response: "httpx.Response", offset: int) -> bool:
        """A 416: nothing at `offset`."""
        part = parse_content_range(response.headers.get("Content-Range", ""))
        if part is not None and part.total is not None:
            if offset < part.total:
                self._contradict(f"it has {part.total} bytes and refuses a range from {offset}", offset)
            self._remember(response, part.total, offset)
        return True

    def _keep(self, piece: bytes, offset: int, received: bytearray) -> None:
        received += piece
        self.bytes_read += len(piece)
        if self.bytes_read > MOST_BYTES:
            self._contradict(f"{self.bytes_read} bytes read and the header goes on", offset)

    def _remember(self, response: "httpx.Response", total: int | None, offset: int) -> None:
        """Length and version of the file; they must not change between answers."""
        if total is not None:
            if self.size_bytes not in {None, total}:
                self._contradict(f"it said {self.size_bytes} bytes before and {total} now", offset)
            self.size_bytes = total
        etag = response.headers.get("ETag")
        if etag and not etag.startswith("W/") and response.status_code != 416:
            if self._etag not in {None, etag}:
                self._contradict("the file changed while it was read", offset)
            self._etag = etag

    def _refuse_encoded(self, response: "httpx.Response", offset: int) -> None:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity" or response.headers.get("Content-Type", "").startswith("multipart/"):
            self._contradict("it sends the bytes compressed or in several parts", offset)

    def _contradict(self, what: str, offset: int) -> NoReturn:
        message = f"{self.name} cannot be read by ranges: {what}"
        raise GgufError(
            message,
            hint="the server or a proxy before it is at fault: try another mirror, or download the file",
            facts={"url": self.name, "offset": offset},
        )

    def _drop_whole(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None
