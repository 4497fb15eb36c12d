"""The search: every model file, cache type and context, judged by memory and speed together; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from glmplan.engine import EngineKind
from glmplan.errors import InputError, ObjectiveUnmet
from glmplan.model import ModelProfile
from glmplan.plan import PlanRequest
from glmplan.planner.judging import Candidate, Judge, Surroundings, reaches, score_of
from glmplan.planner.objective import Score, key_of, rank, without_haste
from glmplan.planner.refine import at_most, refined
from glmplan.planner.remedies import Miss, nearest_miss, nothing_fits
from glmplan.units import MIB

__all__ = ["Candidate", "Surroundings", "search"]

_PROMPT_CACHE_BYTES: Final = 2048 * MIB


def search(
    models: Sequence[ModelProfile], around: Surroundings, request: PlanRequest, *, every_context: bool = False
) -> list[Candidate]:
    """All feasible candidates, the best first.

    Args:
        models: files to choose among.
        around: the machine as the models need it.
        request: pins and the objective.
        every_context: also contexts that cannot be chosen, for who draws a curve of them.

    Raises:
        InputError: a pin outside what the model can do.
        NothingFits: no candidate is feasible; `facts` has the nearest misses and what would fit. Not with `force`.
        ObjectiveUnmet: candidates fit, but none reaches the asked decode speed.
    """
    _check_pins(models, request)
    candidates: list[Candidate] = []
    misses: list[Miss] = []
    judges = [Judge(model, around, request, every_context=every_context) for model in models]
    for judge in judges:
        found = judge.feasible()
        candidates += found
        if not found:
            misses.append(nearest_miss(judge))
    if not candidates:
        if request.force:
            return [_forced(judges, misses)]
        raise nothing_fits(judges, misses)
    fast_enough = [c for c in candidates if reaches(c, request.min_decode_tokens_per_s)]
    if not fast_enough:
        if not request.force:
            raise _too_slow(candidates, request)
        fast_enough = candidates
    scores = [score_of(candidate, request) for candidate in fast_enough]
    ranked = [(fast_enough[index], scores[index]) for index in rank(scores, request)]
    return _jointly(ranked, {id(judge.model): judge for judge in judges}, request)


def _jointly(
    ranked: Sequence[tuple[Candidate, Score]], judges: Mapping[int, Judge], request: PlanRequest
) -> list[Candidate]:
    """The candidates of `ranked`, in front the best that any becomes when its other knobs are turned too.

    Every candidate is turned that could still win by the most its knobs may give. Thresholds of the ranking are those
    of the candidates as they were placed.
    """
    key = key_of([score for _, score in ranked], request)
    base = ranked[0][0]
    best = refined(base, judges[id(base.model)])
    reached = key(score_of(best, request))
    for candidate, score in ranked[1:]:
        judge = judges[id(candidate.model)]
        if key(without_haste(score)) <= reached or key(at_most(candidate, judge)) <= reached:
            continue
        turned = refined(candidate, judge)
        if (found := key(score_of(turned, request))) > reached:
            base, best, reached = candidate, turned, found
    others = [candidate for candidate, _ in ranked if candidate is not base]
    return [_with_prompt_cache(best, judges[id(best.model)]), *others]


def _forced(judges: Sequence[Judge], misses: Sequence[Miss]) -> Candidate:
    """The nearest miss, although it does not fit: the user insists."""
    nearest = min(misses, key=lambda miss: miss.total_bytes)
    return next(judge for judge in judges if judge.model is nearest.model).judge(nearest.placement)


def _check_pins(models: Sequence[ModelProfile], request: PlanRequest) -> None:
    limit = min(model.n_ctx_train for model in models)
    if request.n_ctx is not None and not 1 <= request.n_ctx <= limit:
        message = f"a context of {request.n_ctx} tokens is outside what the model was trained for ({limit})"
        raise InputError(message, hint=f"--n-ctx up to {limit}", facts={"n_ctx": request.n_ctx, "n_ctx_train": limit})
    if request.n_parallel < 1:
        message = f"{request.n_parallel} parallel slots"
        raise InputError(message, hint="--n-parallel 1 or more")


def _with_prompt_cache(candidate: Candidate, judge: Judge) -> Candidate:
    """Let the server keep finished prompts in host memory that is left over, within 2 GiB."""
    room = candidate.memory.devices[-1].margin_bytes // 2
    cache = min(_PROMPT_CACHE_BYTES, room) // MIB * MIB
    if cache <= 0 or judge.around.engine is EngineKind.LLAMA_CPP_PYTHON:
        return candidate
    placement = replace(candidate.placement, cache_ram_bytes=cache)
    return replace(candidate, placement=placement, memory=judge.memory.estimate(placement))


def _too_slow(candidates: Sequence[Candidate], request: PlanRequest) -> ObjectiveUnmet:
    best = max(candidates, key=lambda candidate: candidate.speed.decode_tokens_per_s.value)
    reached = best.speed.decode_tokens_per_s
    message = (
        f"no configuration decodes {request.min_decode_tokens_per_s:g} tokens/s at {best.speed.depth_tokens} tokens "
        f"of depth: the fastest reaches {reached.value:.1f} ({reached.low:.1f} to {reached.high:.1f}, {reached.basis})"
    )
    return ObjectiveUnmet(
        message,
        hint=f"--min-decode {reached.value:.0f}",
        facts={"decode_tokens_per_s": reached.value, "quantization": best.model.quantization},
    )
