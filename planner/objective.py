"""What "best" means: the rules of each objective, as a ranking of scores. Told to users in docs/how-it-chooses.md."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from glmplan.plan import PlanRequest
from glmplan.workload import Objective

# A context shorter than this is a last resort for a coding agent.
WANTED_CONTEXT: Final = 32768
# A better quant, or a longer context, may cost this share of the decode speed that could be had without it.
QUALITY_MAY_COST: Final = 0.5
CONTEXT_MAY_COST: Final = 0.4
# Slower than this a longer context is not worth having (a person reads about 5 tokens a second).
USABLE_DECODE_TOKENS_PER_S: Final = 5.0
MINIMUM_DEPTH: Final = 4096


@dataclass(frozen=True, slots=True)
class Score:
    """What the ranking sees of a candidate; `quality` is higher for better files.

    `request_s`: seconds for one request of the workload, prompt and output; `offloaded_bytes`: weights of layers and
    experts in main memory.
    """

    quality: int
    n_ctx: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    full_cache: bool
    request_s: float
    offloaded_bytes: int


def depth_of(n_ctx: int, asked: int | None) -> int:
    """Tokens already in the context when speed is judged: a quarter of it, at least 4k, never more than it."""
    return min(n_ctx, asked if asked is not None else max(MINIMUM_DEPTH, n_ctx // 4))


def without_haste(score: Score) -> Score:
    """`score` as if it took no time: what loses even so, loses by something else than speed."""
    return replace(score, decode_tokens_per_s=inf, prefill_tokens_per_s=inf, request_s=0.0)


def wanted_context(request: PlanRequest) -> int:
    """Contexts shorter than this come after all others of the same file and cache; 0 where speed alone counts."""
    return 0 if request.objective in {Objective.DECODE_SPEED, Objective.PREFILL_SPEED} else WANTED_CONTEXT


def rank(scores: Sequence[Score], request: PlanRequest) -> list[int]:
    """Indices of `scores`, best first; ties keep their order, so that the same question has the same answer."""
    key = key_of(scores, request)
    return sorted(range(len(scores)), key=lambda index: key(scores[index]), reverse=True)


Key = Callable[[Score], tuple[float, ...]]


def key_of(scores: Sequence[Score], request: PlanRequest) -> Key:
    """What `scores` are ranked by, higher is better, what counts most first."""
    return _KEYS[request.objective](scores, request)


def _balanced(scores: Sequence[Score], request: PlanRequest) -> Key:
    """Wanted context, usable speed, quality, full-precision cache, context that keeps its speed, time of a request."""
    wanted = min(WANTED_CONTEXT, request.n_ctx or WANTED_CONTEXT)
    at_wanted = [score for score in scores if score.n_ctx >= wanted] or list(scores)
    fastest = max(score.decode_tokens_per_s for score in at_wanted)

    # A longer context is judged against the same file with the shortest context wanted.
    base: dict[tuple[int, bool], float] = {}
    for score in at_wanted:
        kind = (score.quality, score.full_cache)
        base[kind] = max(base.get(kind, 0.0), score.decode_tokens_per_s)

    def reference_of(score: Score) -> float:
        return base.get((score.quality, score.full_cache), score.decode_tokens_per_s)

    def usable(score: Score) -> bool:
        return reference_of(score) >= (1 - QUALITY_MAY_COST) * fastest

    def keeps_speed(score: Score) -> bool:
        reference = reference_of(score)
        if not score.offloaded_bytes:  # beside weights that are all on GPUs a longer context costs memory alone
            return score.decode_tokens_per_s >= min(USABLE_DECODE_TOKENS_PER_S, reference)
        floor = max((1 - CONTEXT_MAY_COST) * reference, min(USABLE_DECODE_TOKENS_PER_S, reference))
        return score.decode_tokens_per_s >= floor

    def key(score: Score) -> tuple[float, ...]:
        long_enough = score.n_ctx >= wanted
        return (
            long_enough,
            usable(score),
            score.quality,
            score.full_cache,
            keeps_speed(score),
            score.n_ctx if keeps_speed(score) else -score.n_ctx,
            -score.request_s,
        )

    return key


def _quality(scores: Sequence[Score], request: PlanRequest) -> Key:
    del scores, request
    return lambda s: (s.quality, s.full_cache, s.n_ctx >= WANTED_CONTEXT, -s.request_s, s.n_ctx)


def _context(scores: Sequence[Score], request: PlanRequest) -> Key:
    del scores, request
    return lambda s: (s.n_ctx, -s.request_s, s.quality)


def _decode_speed(scores: Sequence[Score], request: PlanRequest) -> Key:
    del scores, request
    return lambda s: (s.decode_tokens_per_s, s.quality, s.n_ctx)


def _prefill_speed(scores: Sequence[Score], request: PlanRequest) -> Key:
    del scores, request
    return lambda s: (s.prefill_tokens_per_s, s.decode_tokens_per_s, s.quality, s.n_ctx)


_KEYS: Final[dict[Objective, Callable[[Sequence[Score], PlanRequest], Key]]] = {
    Objective.BALANCED: _balanced,
    Objective.QUALITY: _quality,
    Objective.CONTEXT: _context,
    Objective.DECODE_SPEED: _decode_speed,
    Objective.PREFILL_SPEED: _prefill_speed,
}
