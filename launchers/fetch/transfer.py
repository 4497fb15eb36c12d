"""One answer of a server appended to what is here: only bytes that belong there, never more than the file has."""

import time
from typing import TYPE_CHECKING, BinaryIO, Final

from glmplan.errors import FetchError, GlmplanError
from glmplan.http_requests import (
    ContentRange,
    origin_of,
    parse_content_range,
    refuse_web_page,
    refused,
    shown_url,
    too_slow,
)
from glmplan.launchers.fetch.hub import TRY_AGAIN, Blob, Hub
from glmplan.launchers.fetch.limits import Interrupted, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

_EXPIRED: Final = frozenset({401, 403, 404, 410})


def receive(hub: Hub, blob: Blob, stream: BinaryIO, on_bytes: "Callable[[int], None]") -> None:
    """Ask for what is missing of `blob` and append it to `stream`, which stands at its end.

    A server that ignores Range and sends everything has the part that is here already passed over.

    Raises:
        Interrupted: the answer broke off, dripped, lied, or was a refusal that may pass.
        InputError: the server refuses for good.
    """
    have = stream.tell()
    with hub.get(blob.url, {"Range": f"bytes={have}-"} if have else {}) as (response, url):
        passed_over = have - _first_byte(response, url, blob, have)
        slow = _Slowness(hub, url)
        for piece in response.iter_raw():
            slow.watch(len(piece))
            skipped = min(passed_over, len(piece))
            passed_over -= skipped
            wanted = piece[skipped : skipped + blob.size_bytes - have]
            if wanted:
                stream.write(wanted)
                have += len(wanted)
                on_bytes(len(wanted))
            if have == blob.size_bytes:
                return
    if have < blob.size_bytes:
        message = f"{shown_url(url)} ended after {have} of {blob.size_bytes} bytes"
        raise Interrupted(_lied(message, url))


def _first_byte(response: "httpx.Response", url: str, blob: Blob, have: int) -> int:
    """Where in the file the answer's body begins, at most at `have`."""
    status = response.status_code
    if status not in {200, 206}:
        raise _refusal(response, url, blob)
    refuse_web_page(response, url)
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if coding not in {"", "identity"}:
        raise Interrupted(_lied(f"{shown_url(url)} sends the file compressed ({coding})", url))
    if status == 206:
        part = parse_content_range(response.headers.get("Content-Range", ""))
        return _checked_part(part, url, blob, have)
    length = response.headers.get("Content-Length")
    if length is not None and length.strip() != str(blob.size_bytes):
        message = f"{shown_url(url)} announces {length} bytes, the hub says {blob.size_bytes}"
        raise Interrupted(_lied(message, url))
    return 0


def _checked_part(part: ContentRange | None, url: str, blob: Blob, have: int) -> int:
    if part is None or part.first is None:
        message = f"{shown_url(url)} sends a part of the file without saying which"
        raise Interrupted(_lied(message, url))
    if part.total not in {None, blob.size_bytes}:
        message = f"{shown_url(url)} says the file has {part.total} bytes, the hub says {blob.size_bytes}"
        raise Interrupted(_lied(message, url))
    if part.first > have:
        message = f"{shown_url(url)} sends bytes from {part.first} on, those from {have} on were asked for"
        raise Interrupted(_lied(message, url))
    return part.first


def _refusal(response: "httpx.Response", url: str, blob: Blob) -> Exception:
    status = response.status_code
    if status in TRY_AGAIN:
        return Interrupted(refused(response, url), pause_s=retry_after_s(response.headers.get("Retry-After")))
    if status == 416:
        return Interrupted(_lied(f"{shown_url(url)} has less than the {blob.size_bytes} bytes the hub tells of", url))
    if status in _EXPIRED and origin_of(url) != origin_of(blob.url):
        return Interrupted(refused(response, url))  # a signed address: the next attempt gets a fresh one
    return refused(response, url)


def _lied(message: str, url: str) -> GlmplanError:
    return FetchError(message, hint="the server or a proxy before it is at fault: try again later or another mirror",
                      facts={"url": shown_url(url)})  # fmt: skip


class _Slowness:
    """Notices a server that sends, but hardly; one that sends nothing runs into the read timeout."""

    def __init__(self, hub: Hub, url: str) -> None:
        self._limits = hub.limits
        self._url = url
        self._since_s = time.monotonic()
        self._bytes = 0

    def watch(self, n_bytes: int) -> None:
        """Count bytes that came.

        Raises:
            Interrupted: too few in the last window.
        """
        self._bytes += n_bytes
        elapsed_s = time.monotonic() - self._since_s
        if elapsed_s < self._limits.window_s:
            return
        if self._bytes < self._limits.slowest_bytes_per_s * elapsed_s:
            raise Interrupted(too_slow(self._url, self._bytes, elapsed_s))
        self._since_s, self._bytes = time.monotonic(), 0
