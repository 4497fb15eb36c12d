"""Ollama's own API as far as a launch needs it: its version, blobs, create, load, unload, and what is loaded.

Source: the API reference and openapi.yaml of ollama v0.33.0-rc2, api/types.go. Errors are `{"error": TEXT}`.
"""

import http
import http.client
import json
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from glmplan.errors import EngineError
from glmplan.launchers.json_values import document, listing, mapping
from glmplan.noun import noun

_ASK_S: Final = 10.0
# A model that takes longer is given up by Ollama itself, after five minutes without progress.
_LOAD_S: Final = 3600.0
_SHOWN_CHARACTERS: Final = 2000


@noun
class Loaded:
    """A model in memory as GET /api/ps tells it; `gpu_bytes` is its part in GPU memory, `n_ctx` of one slot."""

    total_bytes: int
    gpu_bytes: int
    n_ctx: int | None


class OllamaDaemon:
    """A running daemon, by its address."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet."""
        self.url = url

    def version(self) -> str | None:
        """What it says of itself; None while nobody answers."""
        try:
            return str(self._ask("GET", "/api/version").get("version", "")) or None
        except EngineError:
            return None

    def has_blob(self, digest: str) -> bool:
        """Whether a file of this digest (`sha256:...`) is in its store."""
        status, _ = self._send("HEAD", f"/api/blobs/{digest}", None, _ASK_S)
        return status == http.HTTPStatus.OK

    def push_blob(self, digest: str, path: Path) -> None:
        """Copy a file into its store.

        Raises:
            EngineError: it does not take it: another digest, or no room.
        """
        with path.open("rb") as stream:
            status, text = self._send("POST", f"/api/blobs/{digest}", stream, _LOAD_S, size=path.stat().st_size)
        if status not in {http.HTTPStatus.OK, http.HTTPStatus.CREATED}:
            refused = "a copy of the file"
            raise _refused(refused, status, text)

    def create(self, body: dict[str, Any]) -> None:
        """Create or replace a model.

        Raises:
            EngineError: it refuses.
        """
        self._ask("POST", "/api/create", {**body, "stream": False}, _LOAD_S)

    def load(self, model: str, *, keep_alive: str) -> None:
        """Bring a model into memory, or keep it there for `keep_alive` (such as `2m`) from now on.

        Raises:
            EngineError: it cannot; the message is Ollama's.
        """
        self._ask("POST", "/api/generate", {"model": model, "keep_alive": keep_alive, "stream": False}, _LOAD_S)

    def unload(self, model: str) -> None:
        """Take a model out of memory.

        Raises:
            EngineError: nobody answers.
        """
        self._ask("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})

    def loaded(self, model: str) -> Loaded | None:
        """What it holds of `model`; None when that is not in memory.

        Raises:
            EngineError: nobody answers.
        """
        rows = (mapping(row) for row in listing(self._ask("GET", "/api/ps").get("models")))
        row = next((row for row in rows if _is_name(str(row.get("name", "")), model)), None)
        if row is None:
            return None
        n_ctx = row.get("context_length")
        return Loaded(
            total_bytes=int(row.get("size", 0)),
            gpu_bytes=int(row.get("size_vram", 0)),
            n_ctx=int(n_ctx) if n_ctx else None,
        )

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, limit_s: float = _ASK_S
    ) -> dict[str, Any]:
        status, text = self._send(method, path, None if body is None else json.dumps(body), limit_s)
        answer = document(text)
        if status != http.HTTPStatus.OK or answer.get("error"):
            asked = f"{method} {path}"
            raise _refused(asked, status, text)
        return answer

    def _send(
        self, method: str, path: str, body: str | BinaryIO | None, limit_s: float, *, size: int | None = None
    ) -> tuple[int, str]:
        """HTTP status and text of the answer; `size` bytes of a file, or a JSON text, are sent."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=limit_s)
        headers = {"Content-Type": "application/json"} if size is None else {"Content-Length": str(size)}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            message = f"Ollama at {self.url} does not answer {method} {path}: {error or type(error).__name__}"
            raise EngineError(message, hint="start it: ollama serve") from error
        finally:
            connection.close()


def _refused(what: str, status: int, text: str) -> EngineError:
    said = str(document(text).get("error", text))[:_SHOWN_CHARACTERS]
    message = f"Ollama refused {what} (HTTP {status}): {said}"
    return EngineError(message, hint="read the daemon's log", facts={"status": status})


def _is_name(found: str, wanted: str) -> bool:
    """Names are folded to lower case on disk, and without a tag mean `latest`."""
    with_tag = wanted if ":" in wanted else f"{wanted}:latest"
    return found.casefold() in {wanted.casefold(), with_tag.casefold()}
