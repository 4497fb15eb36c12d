"""When nothing fits: the nearest misses, and the numbers that would fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan.errors import JsonValue, NothingFits
from glmplan.model import ModelProfile
from glmplan.placement import Placement
from glmplan.planner.candidates import base_of, cache_types, contexts, largest_context
from glmplan.planner.judging import Judge
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload, fits_somehow
from glmplan.planner.spaces import HostSpace
from glmplan.units import format_bytes

# Types a user may ask for when a default does not fit, from large to small.
_SMALLER_CACHES: Final = ("q8_0", "q5_1", "q4_0")
# More main memory than anybody has: what then still leaves a GPU has to.
_ENDLESS_BYTES: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class Miss:
    """What the least demanding placement of one model file still lacks, by device."""

    model: ModelProfile
    placement: Placement
    missing_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Missing bytes of all devices."""
        return sum(self.missing_bytes.values())


def nearest_miss(judge: Judge) -> Miss:
    """The least that could have been asked: the shortest context, and what no GPU holds in main memory."""
    memory, request = judge.memory, judge.request
    n_ctx = request.n_ctx or min(contexts(memory.model.n_ctx_train, None))
    base = base_of(memory, judge.demand, list(cache_types(request.cache_type))[-1], n_ctx)
    tried = [base]
    if memory.spaces.gpus:
        endless = replace(memory.spaces, host=HostSpace(usable_bytes=_ENDLESS_BYTES))
        filled = best_offload(MemoryModel(memory.model, endless), base)
        tried += [filled] if filled is not None else [replace(base, n_cpu_moe=memory.layers.n_main, use_mmap=False)]
    misses = [
        Miss(memory.model, placement, {row.id: -row.margin_bytes for row in rows if row.margin_bytes < 0})
        for placement in tried
        for rows in (memory.estimate(placement).devices,)
    ]
    return min(misses, key=lambda miss: miss.total_bytes)


def nothing_fits(judges: Sequence[Judge], misses: Sequence[Miss]) -> NothingFits:
    """The refusal: what is short where, the nearest first, and what would fit instead."""
    ordered = sorted(misses, key=lambda miss: miss.total_bytes)
    nearest = ordered[0]
    short = ", ".join(f"{device} is {format_bytes(size)} short" for device, size in nearest.missing_bytes.items())
    at = f"{nearest.placement.n_ctx} tokens of context"
    message = f"nothing fits: the nearest is {nearest.model.quantization} with {at}, where {short}"
    rows: list[JsonValue] = [
        {
            "quantization": miss.model.quantization,
            "n_ctx": miss.placement.n_ctx,
            "cache_type": miss.placement.cache_type_k,
            "missing_bytes": dict(miss.missing_bytes),
        }
        for miss in ordered
    ]
    words, facts = _what_fits(judges)
    facts["nearest_misses"] = rows
    more = " and ".join(f"{format_bytes(size)} more on {device}" for device, size in nearest.missing_bytes.items())
    words.append(f"{more} (close what holds it, or name another machine with --on)")
    return NothingFits(message, hint=f"{'; or '.join(words)}; --force goes on anyway", facts=facts)


def with_smaller_files(refusal: NothingFits, judges: Sequence[Judge]) -> NothingFits:
    """`refusal` of a file that was asked for, with the best of other files that fit as everything else was asked."""
    fitting = next((judge for judge in judges if _fits_as_asked(judge)), None)
    if fitting is None:
        return refusal
    name = fitting.model.quantization
    facts = {**refusal.facts, "quantization_that_fits": name}
    return NothingFits(refusal.message, hint=f"--quant {name} fits; or {refusal.hint}", facts=facts)


def _fits_as_asked(judge: Judge) -> bool:
    return any(_fits_with(judge, cache) for cache in cache_types(judge.request.cache_type))


def _what_fits(judges: Sequence[Judge]) -> tuple[list[str], dict[str, JsonValue]]:
    """Options that would fit with everything else as asked, the best of all files for each."""
    words: list[str] = []
    facts: dict[str, JsonValue] = {}
    found = [pair for judge in judges for pair in [_longest(judge)] if pair is not None]
    if found and judges[0].request.n_ctx is not None:
        n_ctx, name = max(found)
        words.append(f"--n-ctx {n_ctx} fits with {name}")
        facts["n_ctx_that_fits"] = n_ctx
    for cache in _SMALLER_CACHES:
        fitting = next((judge for judge in judges if _fits_with(judge, cache)), None)
        if fitting is not None:
            words.append(f"--cache-type {cache} fits with {fitting.model.quantization}")
            facts["cache_type_that_fits"] = cache
            break
    return words, facts


def _longest(judge: Judge) -> tuple[int, str] | None:
    """The longest context that fits, and the file it fits with."""
    cache = list(cache_types(judge.request.cache_type))[-1]
    n_ctx_train = judge.model.n_ctx_train
    found = largest_context(
        judge.memory, base_of(judge.memory, judge.demand, cache, n_ctx_train), n_ctx_train, fits_somehow
    )
    return (found.n_ctx, judge.model.quantization) if found else None


def _fits_with(judge: Judge, cache: str) -> bool:
    n_ctx = judge.request.n_ctx or min(contexts(judge.model.n_ctx_train, None))
    return fits_somehow(judge.memory, base_of(judge.memory, judge.demand, cache, n_ctx))
