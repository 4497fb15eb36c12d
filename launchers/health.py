"""Asking a server whether it is ready, over plain HTTP."""

import http
import http.client
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from glmplan.launchers.json_values import document, mapping
from glmplan.launchers.launch import Endpoint
from glmplan.noun import noun

_TIMEOUT_S: Final = 2.0
_SHOWN_CHARACTERS: Final = 200
_MOST_BYTES: Final = 1 << 20


class Readiness(StrEnum):
    """What a server says of itself."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"
    REFUSING = "refusing"


@noun
class Health:
    """One answer to a health question; `status` is the HTTP status, None when nobody answered."""

    readiness: Readiness
    status: int | None
    text: str = ""


def ask(endpoint: Endpoint, path: str, *, timeout_s: float = _TIMEOUT_S) -> Health:
    """The health of the server at `endpoint`: 200 is ready, 503 loading (llama.cpp tools/server/README.md)."""
    status, text = _get(endpoint, path, timeout_s=timeout_s, most_bytes=_SHOWN_CHARACTERS * 4)
    if status is None:
        return Health(readiness=Readiness.SILENT, status=None, text=text)
    kinds = {200: Readiness.READY, 503: Readiness.LOADING}
    return Health(readiness=kinds.get(status, Readiness.REFUSING), status=status, text=_message(text))


def page(endpoint: Endpoint, path: str, *, timeout_s: float = _TIMEOUT_S) -> str:
    """What the server answers at `path`; empty when it does not, or refuses."""
    status, text = _get(endpoint, path, timeout_s=timeout_s, most_bytes=_MOST_BYTES)
    return text if status == http.HTTPStatus.OK else ""


def _get(endpoint: Endpoint, path: str, *, timeout_s: float, most_bytes: int) -> tuple[int | None, str]:
    """HTTP status and text; None and the reason when nobody answers."""
    headers: dict[str, str] = {}
    key = endpoint.api_key()
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    address = urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(address.hostname or endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(most_bytes).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)
    finally:
        connection.close()


def _message(text: str) -> str:
    """The message inside a JSON error, or the beginning of whatever was sent."""
    return str(mapping(document(text).get("error")).get("message", text))[:_SHOWN_CHARACTERS]
