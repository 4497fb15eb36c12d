"""What the hub says of a file before a byte of it is fetched: its commit, its length and its checksum.

The protocol is huggingface_hub's (`get_hf_file_metadata`): HEAD of the /resolve/ address; files kept apart from git are
redirected to a store, and the redirect carries X-Repo-Commit, X-Linked-Etag (their SHA-256) and X-Linked-Size.
"""

import contextlib
import dataclasses
import re
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from glmplan.errors import FetchError, InputError
from glmplan.fetched import HubFile
from glmplan.http_requests import (
    Credentials,
    new_client,
    redirect_target,
    refuse_web_page,
    refused,
    send,
    send_once,
    shown_url,
    too_slow,
    unreachable,
)
from glmplan.http_watchdog import Watchdog
from glmplan.launchers.fetch.limits import FetchLimits, Interrupted, Patience, retry_after_s
from glmplan.noun import noun

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOST_REDIRECTS: Final = 10
_HEAD_ATTEMPTS: Final = 3
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")


@noun
class Blob:
    """One file at one commit; `etag` is its SHA-256, or for small files git's SHA-1, and names it in the cache."""

    file: HubFile
    commit: str
    etag: str
    size_bytes: int
    url: str

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of its content, when that is what the hub names it by."""
        return self.etag if _SHA256.fullmatch(self.etag) else None


class Hub:
    """A model hub or a mirror of it; the token goes to its own address only."""

    def __init__(self, endpoint: str, credentials: Credentials | None, limits: FetchLimits) -> None:
        """Prepare to ask; nothing is sent yet.

        Raises:
            InputError: certificates or proxies of the environment cannot be used.
        """
        self._endpoint = endpoint.rstrip("/")
        self._credentials = credentials
        self.limits = limits
        self._client = new_client(limits.http)
        self._watchdog = Watchdog()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def address(self, file: HubFile, revision: str) -> str:
        """Where the hub serves `file` at `revision`."""
        return f"{self._endpoint}/{file.repo}/resolve/{quote(revision, safe='')}/{quote(file.file)}"

    def blob(self, file: HubFile, say: "Callable[[str], None]") -> Blob:
        """Ask what `file` is now.

        Raises:
            InputError: unreachable, refused, or not there.
            FetchError: the answer does not tell commit, length and checksum.
        """
        patience = Patience(_few_attempts(self.limits), say)
        while True:
            try:
                return self._blob(file)
            except Interrupted as interrupted:
                patience.wait(interrupted)

    def _blob(self, file: HubFile) -> Blob:
        url = self.address(file, file.revision)
        headers = self._headers_of(url)
        commit = headers.get("x-repo-commit", "")
        etag = (headers.get("x-linked-etag") or headers.get("etag", "")).strip().removeprefix("W/").strip('"')
        linked = "x-linked-etag" in headers
        length = headers.get("x-linked-size") or ("" if linked else headers.get("content-length", ""))
        for what, value, form in (("commit", commit, _COMMIT), ("length", length, _LENGTH)):
            if not form.fullmatch(value):
                raise _untold(url, what)
        if not _SHA256.fullmatch(etag) and not _GIT_SHA1.fullmatch(etag):
            raise _untold(url, "checksum")
        return Blob(file=file, commit=commit, etag=etag, size_bytes=int(length), url=self.address(file, commit))

    def _headers_of(self, url: str) -> Mapping[str, str]:
        """Headers of the answer that describes the file; what an earlier redirect said is kept."""
        told: dict[str, str] = {}
        for _ in range(_MOST_REDIRECTS + 1):
            with self._answer("HEAD", url, {}) as (response, _):
                target = redirect_target(response, url)
                names = response.headers.items()
                kept = ("x-repo-commit", "x-linked-etag", "x-linked-size") if target else None
                told |= {name.lower(): value for name, value in names if kept is None or name.lower() in kept}
                if target is None:
                    _require_ok(response, url)
                    return told
            if "x-linked-etag" in told:
                return told
            url = target
        message = f"more than {_MOST_REDIRECTS} redirects, the last to {shown_url(url)}"
        raise InputError(message, hint="the server sends requests in circles: try another mirror")

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> "Generator[tuple[httpx.Response, str], None, None]":
        """GET `url`, redirects followed; the answer, its body unread, and the address it came from.

        Raises:
            Interrupted: the connection broke, then or while the block reads the body.
            InputError: redirected to where nobody should go.
        """
        with self._answer("GET", url, headers) as answer:
            yield answer

    @contextlib.contextmanager
    def _answer(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> "Generator[tuple[httpx.Response, str], None, None]":
        import httpx

        slack_s = self.limits.http.slack_s
        try:
            with self._watchdog.within(slack_s):
                if method == "GET":
                    response, final = send(self._client, url, headers, self._credentials, self._watchdog)
                else:
                    response = send_once(self._client, method, url, headers, self._credentials, self._watchdog)
                    final = url
            try:
                yield response, final
            finally:
                response.close()
        except httpx.TransportError as error:
            broke = too_slow(url, 0, slack_s) if self._watchdog.fired else unreachable(error, url)
            raise Interrupted(broke) from error


def _few_attempts(limits: FetchLimits) -> FetchLimits:
    """A hub that does not answer at all is given up on sooner than a transfer that breaks."""
    return dataclasses.replace(limits, attempts=min(limits.attempts, _HEAD_ATTEMPTS))


def _require_ok(response: "httpx.Response", url: str) -> None:
    if response.status_code in TRY_AGAIN:
        raise Interrupted(refused(response, url), pause_s=retry_after_s(response.headers.get("Retry-After")))
    if response.status_code != 200:
        raise refused(response, url)
    refuse_web_page(response, url)


def _untold(url: str, what: str) -> FetchError:
    message = f"{shown_url(url)} does not tell the file's {what}: nothing could be verified, so nothing is fetched"
    return FetchError(message, hint="the address is no model hub: check HF_ENDPOINT", facts={"url": shown_url(url)})
