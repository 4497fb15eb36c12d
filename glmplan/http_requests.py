"""One HTTP request for a model file: redirects, credentials and error answers, with nothing secret in any message.

Profiles read headers with it, launchers fetch whole files.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from glmplan import __version__
from glmplan.errors import InputError, JsonValue
from glmplan.http_watchdog import Watchdog
from glmplan.noun import noun

if TYPE_CHECKING:
    import httpx

_MOST_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HINTS: Final[Mapping[int, str]] = {
    401: "the file needs a login: set HF_TOKEN to a token that may read it (accept the model's licence first)",
    403: "access denied: set HF_TOKEN to a token that may read it (accept the model's licence first)",
    404: "no such file there: check repository, file name and revision",
    410: "the file is gone: check repository and revision",
    429: "too many requests: wait a minute, or set HF_TOKEN",
}


@noun
class HttpLimits:
    """How long to wait and how often to try again.

    A request of n bytes may take `slack_s + n / slowest_bytes_per_s` in all, so that a dripping server ends too.
    """

    connect_s: float = 10.0
    read_s: float = 10.0
    slack_s: float = 20.0
    slowest_bytes_per_s: int = 65_536
    attempts: int = 4
    backoff_s: float = 0.5


@noun
class Credentials:
    """A bearer token and the only place it may be sent to."""

    token: str
    origin: str

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r})"


@noun
class ContentRange:
    """A parsed Content-Range header; `first` is None for `bytes */N`, `total` for an unknown length."""

    first: int | None
    last: int | None
    total: int | None


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: what a credential is bound to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _DEFAULT_PORTS.get(parts.scheme)}"


def shown_url(url: str) -> str:
    """The URL for a person, without user, password, query and fragment: signed addresses hold secrets there."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "the address"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def checked_url(url: str) -> str:
    """`url` if it is an http(s) address.

    Raises:
        InputError: it is not.
    """
    import httpx

    try:
        parts = urlsplit(url)
        valid = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:
        message = f"not an http or https address: {shown_url(url)}"
        raise InputError(message, hint="for example https://host/path/model.gguf")
    return url


def parse_content_range(text: str) -> ContentRange | None:
    """The parts of a Content-Range header, None when it is malformed (RFC 9110, 14.4)."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last = (int(match[1]), int(match[2])) if match[1] else (None, None)
    total = None if match[3] == "*" else int(match[3])
    if first is not None and last is not None and (last < first or (total is not None and last >= total)):
        return None
    return ContentRange(first=first, last=last, total=total)


def new_client(limits: HttpLimits) -> "httpx.Client":
    """A client that follows no redirect on its own and never asks for compression.

    Raises:
        InputError: certificates or proxies of the environment cannot be used.
    """
    import httpx

    timeout = httpx.Timeout(limits.read_s, connect=limits.connect_s)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"glmplan/{__version__}"}
    try:
        return httpx.Client(timeout=timeout, headers=headers, follow_redirects=False)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # Not the error's own text: it may quote a proxy's password.
        message = f"cannot use the certificates or proxies of this environment ({type(error).__name__})"
        raise InputError(message, hint="check SSL_CERT_FILE, HTTP_PROXY, HTTPS_PROXY and ALL_PROXY") from error


def send_once(
    client: "httpx.Client",
    method: str,
    url: str,
    headers: Mapping[str, str],
    credentials: Credentials | None,
    watchdog: Watchdog,
) -> "httpx.Response":
    """One request, its answer's body unread; the token goes along to its own origin only.

    Raises:
        httpx.TransportError: the connection failed.
    """
    sent = dict(headers)
    if credentials is not None and origin_of(url) == credentials.origin:
        sent["Authorization"] = f"Bearer {credentials.token}"
    request = client.build_request(method, url, headers=sent, extensions={"trace": watchdog.trace})
    return client.send(request, stream=True)


def redirect_target(response: "httpx.Response", url: str) -> str | None:
    """Where the answer to a request for `url` sends it on to; None when it does not.

    Raises:
        InputError: to an address that is not http(s) or is less protected.
    """
    location = response.headers.get("Location")
    if response.status_code not in _REDIRECTS or location is None:
        return None
    target = checked_url(urljoin(url, location))
    if url.startswith("https:") and target.startswith("http:"):
        message = f"{shown_url(url)} redirects to an unencrypted address"
        raise InputError(message, hint="name the final address yourself if you trust it")
    return target


def send(
    client: "httpx.Client", url: str, headers: Mapping[str, str], credentials: Credentials | None, watchdog: Watchdog
) -> "tuple[httpx.Response, str]":
    """GET `url`, following redirects; the answer, its body unread, and the address it came from.

    The token goes with requests to its own origin only. The caller closes the response.

    Raises:
        InputError: redirects without end, or to an address that is not http(s) or is less protected.
        httpx.TransportError: the connection failed.
    """
    for _ in range(_MOST_REDIRECTS + 1):
        response = send_once(client, "GET", url, headers, credentials, watchdog)
        target = redirect_target(response, url)
        if target is None:
            return response, url
        response.close()
        url = target
    message = f"more than {_MOST_REDIRECTS} redirects, the last to {shown_url(url)}"
    raise InputError(message, hint="the server sends requests in circles: try another address")


def refused(response: "httpx.Response", url: str) -> InputError:
    """The error for an answer with a status that brings no file."""
    status = response.status_code
    hint = _HINTS.get(status, "the server is in trouble: try again later" if status >= 500 else "check the address")
    message = f"{shown_url(url)} answered {status} {response.reason_phrase}".rstrip()
    return InputError(message, hint=hint, facts={"url": shown_url(url), "status": status})


def refuse_web_page(response: "httpx.Response", url: str) -> None:
    """Refuse an answer that calls itself HTML.

    Raises:
        InputError: it does.
    """
    kind = response.headers.get("Content-Type", "").lower()
    if kind.startswith(("text/html", "application/xhtml")):
        message = f"{shown_url(url)} serves a web page, not a model file"
        hint = "on a model hub take the /resolve/ address, not /blob/; behind a login page set HF_TOKEN"
        raise InputError(message, hint=hint, facts={"url": shown_url(url), "status": response.status_code})


def unreachable(error: "httpx.TransportError", url: str) -> InputError:
    """The error for a connection that failed, without what httpx says: it may quote the address."""
    import httpx

    facts: dict[str, JsonValue] = {"url": shown_url(url), "cause": type(error).__name__}
    if isinstance(error, httpx.ReadTimeout):
        message = f"{shown_url(url)} stopped sending"
        return InputError(message, hint="the server stalls: try again later or another mirror", facts=facts)
    if isinstance(error, httpx.TimeoutException):
        return InputError(f"{shown_url(url)} did not answer in time", hint="check the connection", facts=facts)
    if isinstance(error, httpx.ConnectError):
        message = f"cannot connect to {shown_url(url)}"
        return InputError(message, hint="check the address and the connection, or use --offline", facts=facts)
    message = f"the connection to {shown_url(url)} broke ({type(error).__name__})"
    return InputError(message, hint="check the connection, try again later", facts=facts)


def too_slow(url: str, n_bytes: int, seconds: float) -> InputError:
    """The error for a server that keeps sending, but hardly."""
    message = f"{shown_url(url)} sends too slowly: {n_bytes} bytes after {seconds:.0f} s"
    return InputError(message, hint="try again later or another mirror", facts={"url": shown_url(url)})


def get_document(
    url: str, *, accept: str, limits: HttpLimits, credentials: Credentials | None = None, most_bytes: int = 2**20
) -> str:
    """A small text document.

    Raises:
        InputError: unreachable, refused, a web page, slow, or longer than `most_bytes`.
    """
    import httpx

    client, watchdog, body = new_client(limits), Watchdog(), bytearray()
    try:
        with watchdog.within(limits.slack_s):
            response, _ = send(client, checked_url(url), {"Accept": accept}, credentials, watchdog)
            if response.status_code != 200:
                raise refused(response, url)
            refuse_web_page(response, url)
            for piece in response.iter_raw():
                body += piece
                if len(body) > most_bytes:
                    message = f"{shown_url(url)} sends more than {most_bytes} bytes where a manifest was expected"
                    raise InputError(message, hint="check the address", facts={"url": shown_url(url)})
    except httpx.TransportError as error:
        raise (too_slow(url, len(body), limits.slack_s) if watchdog.fired else unreachable(error, url)) from error
    finally:
        client.close()
    return body.decode("utf-8", "replace")
