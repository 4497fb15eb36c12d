"""Less than planned, after memory ran out: which knob gives way first, and by how much; pins never do."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from glmplan.errors import JsonValue, NothingFits
from glmplan.estimate import DeviceMemory, MemoryEstimate
from glmplan.ggml_types import GgmlType, cache_type, is_quantized
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Pins, Plan
from glmplan.planner import explain
from glmplan.planner.candidates import largest_context, undecided
from glmplan.planner.judging import Candidate, Judge
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload, fits_somehow, host_expert_bytes
from glmplan.planner.reserves import HOST
from glmplan.planner.spaces import Spaces
from glmplan.step_down import Change, Knob, StepDown
from glmplan.units import MIB, format_bytes

_LEAST_BYTES: Final = 256 * MIB
_PART: Final = 20
_SMALLER_CACHE: Final = GgmlType.Q8_0.name.lower()
# Shorter is of no use for a model that thinks before it answers.
_SHORTEST: Final = 2048


@dataclass(frozen=True, slots=True)
class Shortage:
    """Memory that ran out: on which device, in the engine's words, after how many steps; while serving or loading."""

    device: str
    because: str
    steps_before: int = 0
    serving: bool = False


def less_bytes(needed_bytes: int, steps_before: int) -> int:
    """How much less the next try takes on the device that ran out: 5 %, at least 256 MiB, twice as much each time."""
    return max(_LEAST_BYTES, needed_bytes // _PART) << steps_before


def step_down(plan: Plan, judge: Judge, shortage: Shortage) -> tuple[Plan, StepDown]:
    """The next smaller plan of the same file, and what it gives up.

    First the prompt cache in main memory, then experts move off the GPU, then the KV cache takes a smaller type,
    then the context shrinks: the first of them that frees enough.

    Args:
        plan: the plan that ran out.
        judge: its model file on the machine as it is now.
        shortage: where and why.

    Raises:
        NothingFits: nothing is left to give up, or only what the user pinned: the hint names what would fit.
    """
    start = judge.memory.estimate(plan.placement)
    row = _row(start, shortage.device)
    bare = replace(plan.placement, cache_ram_bytes=0)
    pins = plan.pins or Pins()
    if shortage.serving and shortage.device == HOST and plan.placement.cache_ram_bytes >= _LEAST_BYTES:
        return _taken(plan, judge, start, judge.judge(bare), shortage)
    loaded = _row(judge.memory.estimate(bare), shortage.device)
    limit = min(row.usable_bytes, loaded.needed_bytes - less_bytes(loaded.needed_bytes, shortage.steps_before))
    if not judge.memory.spaces.gpus:
        limit = max(limit, judge.memory.estimate(_smallest(bare, pins)).devices[-1].needed_bytes)
    memory = MemoryModel(judge.model, _tight(judge.memory.spaces, shortage.device, row, limit))
    would_fit: list[str] = []
    for pinned, found in _rungs(memory, bare, pins):
        if found is None or judge.memory.estimate(found).devices == start.devices:
            continue
        if pinned is None:
            return _taken(plan, judge, start, judge.judge(found), shortage)
        would_fit.append(pinned)
    raise _nothing_left(shortage, loaded.needed_bytes, limit, would_fit)


def _rungs(memory: MemoryModel, bare: Placement, pins: Pins) -> Iterator[tuple[str | None, Placement | None]]:
    """What to try in order: the option that the user has pinned against it, and the placement if one fits."""
    whole = undecided(memory, bare)
    yield None, best_offload(memory, whole) if memory.spaces.gpus else None
    is_wide = not is_quantized(cache_type(bare.cache_type_k))
    small = _with_cache(whole, _SMALLER_CACHE)
    if is_wide:
        pinned = None if pins.cache_type is None else f"--cache-type {_SMALLER_CACHE}"
        yield pinned, best_offload(memory, small)
    for start in (whole if pins.cache_type is not None or not is_wide else small,):
        found = largest_context(memory, start, bare.n_ctx - 1, fits_somehow)
        if found is None or found.n_ctx < min(_SHORTEST, bare.n_ctx):
            continue
        pinned = None if pins.n_ctx is None else f"--n-ctx {found.n_ctx}"
        yield pinned, best_offload(memory, found)


def _smallest(bare: Placement, pins: Pins) -> Placement:
    """The least that could be asked of a machine without GPUs."""
    kind = bare.cache_type_k
    if pins.cache_type is None and not is_quantized(cache_type(kind)):
        kind = _SMALLER_CACHE
    n_ctx = bare.n_ctx if pins.n_ctx is not None else min(bare.n_ctx, _SHORTEST)
    return replace(_with_cache(bare, kind), n_ctx=n_ctx)


def _with_cache(placement: Placement, kind: str) -> Placement:
    """`placement` with another KV cache type; quantised ones need flash attention."""
    needs_flash = is_quantized(cache_type(kind))
    flash_attn = FlashAttention.ON if needs_flash else placement.flash_attn
    return replace(placement, cache_type_k=kind, cache_type_v=kind, flash_attn=flash_attn)


def _row(ledger: MemoryEstimate, device: str) -> DeviceMemory:
    """The ledger's row of a device; the host's for one that no plan counts."""
    return next((row for row in ledger.devices if row.id == device), ledger.devices[-1])


def _tight(spaces: Spaces, device: str, row: DeviceMemory, limit: int) -> Spaces:
    """`spaces` with `limit` bytes instead of what is usable on `device`."""
    if row.id == HOST:
        # What a GPU of a unified memory takes is subtracted again by the memory model.
        shared = spaces.host.usable_bytes - row.usable_bytes
        return replace(spaces, host=replace(spaces.host, usable_bytes=limit + shared))
    gpus = tuple(replace(gpu, usable_bytes=limit) if gpu.id == device else gpu for gpu in spaces.gpus)
    return replace(spaces, gpus=gpus)


def _taken(
    plan: Plan, judge: Judge, before: MemoryEstimate, after: Candidate, shortage: Shortage
) -> tuple[Plan, StepDown]:
    depth = after.speed.depth_tokens
    step = StepDown(
        number=shortage.steps_before + 1,
        device=shortage.device,
        because=shortage.because,
        needed_bytes_before=_row(before, shortage.device).needed_bytes,
        needed_bytes_after=_row(after.memory, shortage.device).needed_bytes,
        decode_tokens_per_s_before=judge.speed.decode(plan.placement, depth_tokens=depth).value,
        decode_tokens_per_s_after=after.speed.decode_tokens_per_s.value,
        changes=tuple(_changes(judge.memory, plan.placement, after.placement)),
    )
    smaller = replace(plan, placement=after.placement, memory=explain.planned_memory(after), speed=after.speed)
    return replace(smaller, alternatives=(), prices=(), quality=None), step


def _changes(memory: MemoryModel, before: Placement, after: Placement) -> Iterator[Change]:
    experts = [host_expert_bytes(memory, placement) if memory.spaces.gpus else 0 for placement in (before, after)]
    pairs: tuple[tuple[Knob, int | str, int | str], ...] = (
        (Knob.PROMPT_CACHE, before.cache_ram_bytes, after.cache_ram_bytes),
        (Knob.EXPERTS, experts[0], experts[1]),
        (Knob.GPU_LAYERS, before.n_gpu_layers, after.n_gpu_layers),
        (Knob.UBATCH, before.n_ubatch, after.n_ubatch),
        (Knob.FLASH_ATTENTION, before.flash_attn.value, after.flash_attn.value),
        (Knob.CACHE_TYPE, before.cache_type_k, after.cache_type_k),
        (Knob.CONTEXT, before.n_ctx, after.n_ctx),
    )
    for knob, old, new in pairs:
        if old != new:
            yield Change(knob=knob, before=old, after=new)


def _nothing_left(shortage: Shortage, needed: int, limit: int, would_fit: list[str]) -> NothingFits:
    room = f"{shortage.device} is to take {format_bytes(max(0, limit))} instead of {format_bytes(needed)}"
    facts: dict[str, JsonValue] = {
        "device": shortage.device,
        "needed_bytes": needed,
        "limit_bytes": limit,
        "would_fit": list(would_fit),
    }
    if would_fit:
        message = f"{room}, and what could give way is pinned by the plan"
        return NothingFits(message, hint=f"plan again with {' or with '.join(would_fit)}", facts=facts)
    message = f"{room}, and nothing is left to give up"
    return NothingFits(message, hint="plan again with a smaller --quant, or free memory", facts=facts)
