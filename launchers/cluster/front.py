"""The address of the service: an OpenAI-style proxy before the replicas, itself a Ray Serve deployment.

What fails before the first byte of an answer is asked of another replica (`routes`); what fails later ends with an
error in the stream.
"""

import importlib
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final

from glmplan import jsonio
from glmplan.launchers import api_keys
from glmplan.launchers.cluster.application import KeyDigest
from glmplan.launchers.cluster.messages import Request
from glmplan.launchers.cluster.routes import Answer, NothingSent, Routes
from glmplan.launchers.launch import first_key

_HEALTH: Final = frozenset({"/health", "/v1/health"})
_ANTHROPIC: Final = "/v1/messages"
_ENDS_OF_EVENTS: Final = (b"\n\n", b"\r\n\r\n")
# About one connection, or about us; the engine behind listens for this machine only and wants no key.
_NOT_PASSED_ON: Final = frozenset(
    {"host", "authorization", "x-api-key", "connection", "content-length", "transfer-encoding", "accept-encoding"}
)


class Front:
    """The proxy: who may ask, what is asked, and what the client sees of it."""

    def __init__(
        self,
        application: str,
        key: str | None,
        key_file: str | None,
        users: Mapping[str, int],
        handles: Mapping[str, Any],
    ) -> None:
        """Keep the way to each group.

        Args:
            application: name of the application in Ray Serve.
            key: a `KeyDigest` as JSON, or None.
            key_file: a file with the key on this node, or None; without either everybody may ask.
            users: slots of one replica, by group.
            handles: Ray Serve's handles, by group.

        Raises:
            InputError: the key file cannot be read or holds no key.
        """
        self._key = None if key is None else jsonio.loads(KeyDigest, key, origin="the application's args")
        if key_file is not None:
            api_keys.require_key(Path(key_file))
            self._key = KeyDigest.of(first_key(Path(key_file)) or "")
        self.routes = Routes(application, users, handles)
        self._answered = 0
        self._broken = 0

    async def __call__(self, request: Any) -> Any:  # noqa: ANN401 - Starlette's types
        """Answer one HTTP request."""
        responses = importlib.import_module("starlette.responses")
        path = request.url.path
        if path in _HEALTH:
            await self.routes.look()
            ready = any(self.routes.running.values())
            return responses.JSONResponse({"status": "ok" if ready else "no replica runs"}, 200 if ready else 503)
        if not path.startswith("/v1/"):
            return responses.JSONResponse(_error(f"no such path: {path}", "not_found_error", 404), 404)
        if not self._may_ask(request.headers):
            return responses.JSONResponse(_error("Invalid API Key", "authentication_error", 401), 401)
        try:
            answer = await self.routes.answer(await _taken(request))
        except NothingSent as error:
            return responses.JSONResponse(_error(str(error), "server_error", 503), 503)
        if answer.is_stream:
            events = self.events(answer, anthropic=path.startswith(_ANTHROPIC))
            return responses.StreamingResponse(events, answer.head.status, dict(answer.head.headers))
        self.routes.done(answer)
        self._answered += 1
        return responses.Response(answer.first, answer.head.status, dict(answer.head.headers))

    async def counts(self) -> dict[str, int]:
        """For `glmplan cluster status`: requests under way, and what became of the others."""
        return {
            "under_way": sum(self.routes.under_way.values()),
            "answered": self._answered,
            "retried": self.routes.retried,
            "broken": self._broken,
        }

    def _may_ask(self, headers: Mapping[str, str]) -> bool:
        """Whether the request carries the key, as OpenAI's or as Anthropic's clients send it."""
        if self._key is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        return self._key.matches(bearer if scheme.lower() == "bearer" else headers.get("x-api-key", ""))

    async def events(self, answer: Answer, *, anthropic: bool) -> AsyncGenerator[bytes]:
        """The stream, event by event as it comes; if it breaks off, an event says so."""
        held = answer.first
        try:
            whole, held = _split(held)
            yield whole
            async for piece in answer.rest():
                whole, held = _split(held + piece)
                if whole:
                    yield whole
            if held:
                yield held
            self._answered += 1
        except Exception as error:
            self._broken += 1
            yield _error_event(error, anthropic=anthropic)
        finally:
            self.routes.done(answer)


async def _taken(request: Any) -> Request:  # noqa: ANN401 - Starlette's types
    """What a client asks, fit to be sent on."""
    query = request.url.query
    return Request(
        method=request.method,
        target=request.url.path + (f"?{query}" if query else ""),
        headers=tuple((k, v) for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON),
        body=await request.body(),
    )


def _split(text: bytes) -> tuple[bytes, bytes]:
    """Whole events, and the beginning of one that has not ended: an error may follow only after a whole one."""
    end = max(text.rfind(mark) + len(mark) if mark in text else 0 for mark in _ENDS_OF_EVENTS)
    return text[:end], text[end:]


def _error(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code}}


def _error_event(error: Exception, *, anthropic: bool) -> bytes:
    """An event that clients of either kind take for an error."""
    said = str(error).strip().rpartition("\n")[2] or type(error).__name__
    document = _error(f"the replica broke off: {said}", "server_error", 502)
    if anthropic:
        return f"event: error\ndata: {json.dumps({'type': 'error', **document})}\n\n".encode()
    return f"data: {json.dumps(document)}\n\n".encode()
