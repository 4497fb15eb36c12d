"""One measurement with a filled context: the prompt in pieces, then the last of it and an answer, timed."""

import time
from collections.abc import Callable
from typing import Final

from glmplan.launchers.bench import PromptSource, refuse_short, sample_by_size, sample_of
from glmplan.launchers.client import Target
from glmplan.launchers.stream import stream_completion
from glmplan.measurement import SpeedSample
from glmplan.noun import noun

_TAIL_SEED: Final = 5
# The first piece tells the pace; later ones are twice as long while they take less than this.
_FIRST_PIECE, _LONGEST_PIECE, _SHORT_PIECE_S = 512, 8192, 2.0
_KEPT_SHARE: Final = 0.6
# Text is counted, not measured out: joining two parts may make a token or two more, and a server adds its own.
_TEXT_TOKENS: Final = 16


@noun
class Fill:
    """What to ask for: a prompt of `prompt_tokens`, the last `timed_tokens` of it timed, and `output_tokens` after it.

    With `limit_s` the prompt is cut short when that many seconds of filling would be exceeded.
    """

    prompt_tokens: int
    timed_tokens: int
    output_tokens: int
    limit_s: float | None = None


def measure_filled(target: Target, fill: Fill, *, on_fill: Callable[[int, int], None]) -> SpeedSample:
    """The speeds after a prompt that has been filled, as far as the time goes.

    Args:
        target: the server; nothing else may use it.
        fill: how much.
        on_fill: called with (tokens in the cache, tokens wanted).

    Raises:
        BenchError: it answered with less than two tokens.
        EngineError: it refused or died.
    """
    source = PromptSource(target)
    wanted = fill.prompt_tokens - fill.timed_tokens
    if target.timings and target.n_vocab:
        depth = _filled_in_pieces(target, source, wanted, fill.limit_s, on_fill)
    else:
        depth = max(0, wanted - _TEXT_TOKENS)
        on_fill(0, depth)
        stream_completion(target, source.prefix(depth), n_predict=0, cache_prompt=True)
    on_fill(depth, wanted)
    prompt, cached, new = source.after_prefix(depth, fill.timed_tokens, seed=_TAIL_SEED)
    done = stream_completion(target, prompt, n_predict=fill.output_tokens, cache_prompt=True, ignore_eos=True)
    refuse_short(done, fill.output_tokens)
    if done.cached_tokens:
        _shorten(target, source, depth)
    if done.prompt_tokens is None:
        return sample_by_size(done, depth_tokens=cached, prompt_tokens=new)
    return sample_of(done, depth_tokens=done.cached_tokens, prompt_tokens=done.prompt_tokens)


def _shorten(target: Target, source: PromptSource, depth: int) -> None:
    """Take the filled prompt back, a part at a time.

    Otherwise the next request would first save it in the prompt cache, for nobody: llama-server does that when less
    than half of what a slot holds is kept (tools/server/server-context.cpp, f_keep).
    """
    while depth > _FIRST_PIECE:
        depth = round(depth * _KEPT_SHARE)
        stream_completion(target, source.prefix(depth), n_predict=0, cache_prompt=True)


def _filled_in_pieces(
    target: Target, source: PromptSource, wanted: int, limit_s: float | None, on_fill: Callable[[int, int], None]
) -> int:
    """Tokens that are in the cache: `wanted`, or fewer where the next piece would go past the time there is."""
    began, depth, piece = time.monotonic(), 0, _FIRST_PIECE
    while depth < wanted:
        on_fill(depth, wanted)
        upto, piece_began = min(wanted, depth + piece), time.monotonic()
        # 0 asks llama.cpp to fill its cache and decode nothing.
        stream_completion(target, source.prefix(upto), n_predict=0, cache_prompt=True)
        now = time.monotonic()
        took_s, filled, depth = now - piece_began, upto - depth, upto
        if took_s < _SHORT_PIECE_S:
            piece = min(_LONGEST_PIECE, piece * 2)
        if limit_s is not None and now - began + took_s * min(piece, wanted - depth) / filled > limit_s:
            break
    return depth
