"""Curves of one placement: memory by context and cache type, speed by depth."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from glmplan.comparison import FrontPoint
from glmplan.errors import InputError
from glmplan.estimate import DeviceMemory
from glmplan.placement import Placement
from glmplan.planner.candidates import contexts, largest_context
from glmplan.planner.judging import Candidate, Judge
from glmplan.planner.memory import MemoryModel
from glmplan.planner.rivals import front
from glmplan.report import ContextCurve, ContextPoint, ContextRoom, DepthPoint, Front

# What people choose among; the plan's own type is added.
_CACHE_TYPES: Final = ("f16", "q8_0", "q4_0")
_FIRST_CONTEXT: Final = 256


def context_room(memory: MemoryModel, placement: Placement) -> ContextRoom:
    """Memory of `placement` by context on the device that a longer context fills first, by cache type."""
    n_ctx_train = memory.model.n_ctx_train
    at_most = memory.estimate(replace(placement, n_ctx=n_ctx_train))
    at_least = memory.estimate(replace(placement, n_ctx=_FIRST_CONTEXT))
    # Only devices whose part grows with the context can end it.
    growing = [
        row
        for row, before in zip(at_most.devices, at_least.devices, strict=True)
        if row.needed_bytes > before.needed_bytes
    ]
    device = max(growing or at_most.devices, key=_fullness).id
    types = dict.fromkeys((*_CACHE_TYPES, placement.cache_type_k))
    curves = (_context_curve(memory, _with_cache(placement, name), device) for name in types)
    usable = next(row.usable_bytes for row in at_most.devices if row.id == device)
    return ContextRoom(device=device, usable_bytes=usable, curves=tuple(curve for curve in curves if curve is not None))


def _fullness(row: DeviceMemory) -> float:
    return row.needed_bytes / max(1, row.usable_bytes)


def _with_cache(placement: Placement, name: str) -> Placement:
    return replace(placement, cache_type_k=name, cache_type_v=name)


def _context_curve(memory: MemoryModel, placement: Placement, device: str) -> ContextCurve | None:
    """None for a type that the engine refuses with this placement."""
    n_ctx_train = memory.model.n_ctx_train
    points: list[ContextPoint] = []
    try:
        for n_ctx in _steps((_FIRST_CONTEXT, *contexts(n_ctx_train, None)), parts=2):
            rows = memory.estimate(replace(placement, n_ctx=n_ctx)).devices
            needed = next(row.needed_bytes for row in rows if row.id == device)
            points.append(ContextPoint(n_ctx=n_ctx, needed_bytes=needed))
    except InputError:
        return None
    longest = largest_context(memory, placement, n_ctx_train, lambda model, tried: model.estimate(tried).fits)
    return ContextCurve(
        cache_type=placement.cache_type_k,
        points=tuple(points),
        largest_n_ctx=None if longest is None else longest.n_ctx,
    )


def depth_points(judge: Judge, placement: Placement, *, at: int) -> tuple[DepthPoint, ...]:
    """Forecast speeds of `placement` from an empty context to a full one, and at the depth `at`, in tokens."""
    n_ctx, prompt = placement.n_ctx, judge.request.prompt_tokens
    found = [
        judge.speed.estimate(placement, depth_tokens=depth, prompt_tokens=prompt)
        for depth in _steps((0, at, *contexts(n_ctx, None)), parts=6)
    ]
    return tuple(
        DepthPoint(
            depth_tokens=speed.depth_tokens,
            prefill_tokens_per_s=speed.prefill_tokens_per_s,
            decode_tokens_per_s=speed.decode_tokens_per_s,
        )
        for speed in found
    )


def _steps(marks: Iterable[int], *, parts: int) -> list[int]:
    """`marks` with the space between neighbours cut into `parts`."""
    ordered = sorted(set(marks))
    between = {low + (high - low) * part // parts for low, high in pairwise(ordered) for part in range(1, parts)}
    return sorted({*ordered, *between})


def front_of(ranked: Sequence[Candidate]) -> Front:
    """The front of a search, and everything it considered, each configuration once."""
    considered = (
        FrontPoint(
            n_ctx=candidate.placement.n_ctx,
            decode_tokens_per_s=candidate.speed.decode_tokens_per_s,
            quantization=candidate.model.quantization,
            cache_type=candidate.placement.cache_type_k,
        )
        for candidate in ranked
    )
    return Front(points=front(ranked), considered=tuple(dict.fromkeys(considered)))
