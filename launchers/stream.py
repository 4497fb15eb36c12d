"""One streamed completion as its client sees it: text, token counts, time to first token, time per token.

llama.cpp's own server is asked through /completion, which takes token ids and ends with its `timings`
(tools/server/README.md); others through /v1/completions, by the client's clock alone.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from glmplan.errors import EngineError
from glmplan.launchers.client import Target, connect
from glmplan.launchers.json_values import document, listing, mapping
from glmplan.noun import noun

if TYPE_CHECKING:
    import httpx

Prompt = str | list[int]
_SHOWN_CHARACTERS: Final = 200
# The same question gets the same tokens; sampling costs what it costs a user.
_SEED: Final = 20


@noun
class Completion:
    """A finished stream.

    `ttft_ms` and `tpot_ms` are by the client's clock. `prompt_tokens` are those really processed, without
    `cached_tokens`; None when the server does not say. `whole_prompt_tokens` counts both, where it tells its usage. The
    two rates are the server's own. `began_at_s`, `first_at_s` and `last_at_s` are moments of one clock: the request,
    its first token and its last.
    """

    text: str
    output_tokens: int
    ttft_ms: float
    tpot_ms: float | None
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    began_at_s: float = 0.0
    first_at_s: float = 0.0
    last_at_s: float = 0.0
    whole_prompt_tokens: int | None = None


@noun
class _Event:
    """One message of a stream; `final` carries the closing document."""

    text: str
    is_token: bool
    final: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


def stream_completion(
    target: Target,
    prompt: Prompt,
    *,
    n_predict: int,
    cache_prompt: bool = False,
    ignore_eos: bool = False,
    id_slot: int = 0,
    on_text: Callable[[str], None] | None = None,
    on_first: Callable[[], None] | None = None,
) -> Completion:
    """Ask for `n_predict` tokens after `prompt` and read the stream to its end.

    Args:
        target: the server.
        prompt: text, or token ids where `target.timings`.
        n_predict: tokens wanted; 0 only fills the cache.
        cache_prompt: reuse a cached prefix (only where `target.timings`; other servers always do).
        ignore_eos: go on past an end-of-text token (only where `target.timings`).
        id_slot: the slot to use (only where `target.timings`).
        on_text: called with each piece as it arrives.
        on_first: called when the first token has arrived.

    Raises:
        EngineError: refused, an error inside the stream, or a stream that broke off.
    """
    import httpx

    path, body = _request(target, prompt, n_predict)
    if target.timings:
        body |= {"cache_prompt": cache_prompt, "ignore_eos": ignore_eos, "id_slot": id_slot}
    reader = _Reader(on_text, on_first)
    try:
        with connect(target) as client:
            reader.start()
            with client.stream("POST", path, json=body) as response:
                if not response.is_success:
                    raise refused(target, response.status_code, response.read().decode("utf-8", errors="replace"))
                reader.read(_events(response, timings=target.timings))
    except httpx.HTTPError as error:
        raise _broken(target, reader.n_tokens, str(error) or type(error).__name__) from error
    if reader.final is None:
        raise _broken(target, reader.n_tokens, "the stream ended without its closing message")
    return reader.completion(n_predict)


class _Reader:
    """Collects a stream and its clock."""

    def __init__(self, on_text: Callable[[str], None] | None, on_first: Callable[[], None] | None) -> None:
        self.n_tokens = 0
        self.final: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self._pieces: list[str] = []
        self._on_text = on_text
        self._on_first = on_first
        self.start()

    def start(self) -> None:
        """Start the clock: the request is sent now."""
        self._began = self._first = self._last = time.perf_counter()

    def read(self, events: Iterator[_Event]) -> None:
        for event in events:
            now = time.perf_counter()
            self._usage = event.usage or self._usage
            if event.final is not None:
                self.final = event.final
                if not self.n_tokens:
                    self._first = self._last = now
            elif event.is_token:
                self._token(now)
            if event.text:
                self._pieces.append(event.text)
                if self._on_text is not None:
                    self._on_text(event.text)

    def _token(self, now: float) -> None:
        if not self.n_tokens:
            self._first = now
            if self._on_first is not None:
                self._on_first()
        self._last = now
        self.n_tokens += 1

    def completion(self, n_predict: int) -> Completion:
        final = mapping(self.final)
        timings = mapping(final.get("timings"))
        # Pieces of one character may be held back and arrive together: the closing message knows better.
        tokens = int(timings.get("predicted_n", self.n_tokens))
        if final.get("finish_reason") == "length":
            tokens = n_predict
        tokens = int(self._usage.get("completion_tokens", tokens))
        asked = self._usage.get("prompt_tokens")
        told = timings.get("cache_n", mapping(self._usage.get("prompt_tokens_details")).get("cached_tokens"))
        if told is None and "n_past" in timings:  # ik_llama.cpp: all tokens of the slot, those it computed among them
            told = timings["n_past"] - timings.get("prompt_n", 0) - tokens
        cached = int(told or 0)
        spread_ms = (self._last - self._first) * 1000
        return Completion(
            text="".join(self._pieces),
            output_tokens=tokens,
            ttft_ms=(self._first - self._began) * 1000,
            tpot_ms=spread_ms / (tokens - 1) if tokens > 1 else None,
            prompt_tokens=timings.get("prompt_n") if asked is None or told is None else int(asked) - cached,
            whole_prompt_tokens=None if asked is None else int(asked),
            cached_tokens=cached,
            prefill_tokens_per_s=timings.get("prompt_per_second"),
            decode_tokens_per_s=timings.get("predicted_per_second") if tokens > 1 else None,
            began_at_s=self._began,
            first_at_s=self._first,
            last_at_s=self._last,
        )


def _request(target: Target, prompt: Prompt, n_predict: int) -> tuple[str, dict[str, Any]]:
    if target.timings:
        return "/completion", {"prompt": prompt, "n_predict": n_predict, "stream": True, "seed": _SEED}
    # 0 would mean "until the context is full" there.
    # mlx-lm answers requests with a seed one after the other: not what it does for its users.
    more = {"stream_options": {"include_usage": True}} if target.tells_usage else {"seed": _SEED}
    return "/v1/completions", {
        "model": target.model,
        "prompt": prompt,
        "max_tokens": max(n_predict, 1),
        "stream": True,
        **more,
    }


def _events(response: "httpx.Response", *, timings: bool) -> Iterator[_Event]:
    """Server-sent events as `_Event`s; comments (pings) and [DONE] are skipped."""
    for line in response.iter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field not in {"data", "error"} or value == "[DONE]":
            continue
        event = document(value)
        problem = event.get("error") if field == "data" else event
        if problem:
            message = f"the engine reported an error inside its stream: {_said(problem)}"
            raise EngineError(message, hint="read the engine's log: glmplan logs")
        yield _own_event(event) if timings else _openai_event(event)


def _own_event(event: dict[str, Any]) -> _Event:
    text = str(event.get("content", ""))
    if event.get("stop"):
        return _Event(text=text, is_token=False, final=event)
    return _Event(text=text, is_token=True)


def _openai_event(event: dict[str, Any]) -> _Event:
    choice = mapping(next(iter(listing(event.get("choices"))), None))
    usage = mapping(event.get("usage")) or None
    text = str(choice.get("text") or "")
    if choice.get("finish_reason"):
        return _Event(text=text, is_token=False, final=choice, usage=usage)
    return _Event(text=text, is_token=bool(choice), usage=usage)


def _said(problem: object) -> str:
    return str(mapping(problem).get("message", problem))


def refused(target: Target, status: int, text: str) -> EngineError:
    """The error of a server that answered with an HTTP error and `text`."""
    answer = document(text)
    said = _said(answer.get("error") or answer.get("detail") or text[:_SHOWN_CHARACTERS])
    message = f"{target.url} refused the request (HTTP {status}): {said}"
    return EngineError(message, hint="read the engine's log: glmplan logs", facts={"status": status})


def _broken(target: Target, n_tokens: int, why: str) -> EngineError:
    message = f"{target.url} broke off after {n_tokens} tokens: {why}"
    return EngineError(
        message,
        hint="the engine may have died: glmplan status, glmplan logs",
        facts={"url": target.url, "tokens_received": n_tokens},
    )
