"""Knobs that move no weights, in every combination: batches, flash attention, repacking, slots, drafting."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Final

from glmplan.engine import EngineKind
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.judging import Candidate, Judge, keeps_floor
from glmplan.planner.memory import MemoryModel
from glmplan.planner.mtp import LEAST_SHARE
from glmplan.planner.objective import WANTED_CONTEXT
from glmplan.planner.offload import fits
from glmplan.planner.slots import together, with_slots
from glmplan.units import MIB
from glmplan.workload import Objective

_LONGER_BATCHES: Final = (1024, 2048)
# A knob is turned only for this much less time; and what it takes may not leave a GPU with less than this.
_WORTH: Final = 0.99
_KEPT_BYTES: Final = 256 * MIB
# Repacked weights decode 7 % faster on a CPU (2 cores of Zen 4, 16 of 47 layers); the speed model has no term for it.
_REPACKED_DECODE: Final = 1 / 1.07


def best_variant(best: Candidate, judge: Judge) -> Candidate:
    """The variant of `best` that takes the least time by what is asked for, each turned knob saving one per cent."""
    found, least, slowest = best, _time(best, judge), _decode_s(best, judge)
    for placement, n_turns in variants(best.placement, judge):
        if not _has_room(judge.memory, placement):
            continue
        candidate = judge.judge(placement)
        time = _time(candidate, judge) / _WORTH**n_turns
        # Only who asks for prefill speed pays for it with decode speed.
        is_fair = judge.request.objective is Objective.PREFILL_SPEED or _decode_s(candidate, judge) * _WORTH <= slowest
        if is_fair and keeps_floor(candidate, best, judge.request) and time < least:
            found, least = candidate, time
    return found


def variants(placement: Placement, judge: Judge) -> Iterator[tuple[Placement, int]]:
    """Every combination of other batches, attention, weights, caches and drafting, and how many knobs it turns."""
    for turns in product(*_turns(placement, judge)):
        changed = placement
        for turn in turns:
            changed = replace(changed, **turn)
        if not changed.kv_unified and placement.kv_unified:
            changed = with_slots(changed, changed.n_parallel, kv_unified=False)
        if changed != placement:
            yield changed, sum(map(bool, turns))


def _turns(placement: Placement, judge: Judge) -> list[list[dict[str, Any]]]:
    """By knob, what may be set, nothing first."""
    has_gpu = bool(judge.memory.spaces.gpus)
    by_ik = placement.engine is EngineKind.IK_LLAMA
    longer = [n for n in _LONGER_BATCHES if has_gpu and placement.n_ubatch < n <= placement.n_ctx]
    # Slots share the context unless speed is all that is asked and each keeps enough of it.
    is_enough = placement.n_ctx // placement.n_parallel >= WANTED_CONTEXT
    may_part = judge.request.objective is Objective.DECODE_SPEED and placement.n_parallel > 1 and is_enough
    return [
        [{}, *({"n_ubatch": n, "n_batch": max(placement.n_batch, n)} for n in longer)],
        [{}, *([{"flash_attn": FlashAttention.OFF}] if placement.cache_type_k == "f16" and not by_ik else [])],
        [{}, *([{"repack": True}] if not has_gpu and judge.around.can_repack and not placement.repack else [])],
        [{}, *([{"kv_unified": False}] if may_part else [])],
        [{}, *([{"load_mtp": True}] if _may_draft(placement, judge) else [])],
    ]


def _may_draft(placement: Placement, judge: Judge) -> bool:
    """The file has the block and the engine can use it; for one request at a time, as all published runs."""
    in_server = judge.around.engine in {EngineKind.LLAMA_SERVER, EngineKind.XLLAMACPP}
    return in_server and judge.model.n_nextn_layers > 0 and placement.n_parallel == 1


def _has_room(memory: MemoryModel, placement: Placement) -> bool:
    """Whether it fits, and does not fill a GPU to the brim for a knob."""
    rows = memory.estimate(placement).devices
    if not fits(memory, placement) or any(row.margin_bytes < _KEPT_BYTES for row in rows[:-1] if row.weights_bytes):
        return False
    return fits_while_loading(memory, placement)


def fits_while_loading(memory: MemoryModel, placement: Placement) -> bool:
    """Whether main memory holds the file and its repacked copy together, as both are there while a CPU loads.

    ik_llama.cpp repacks in place what it has read.
    """
    host = memory.estimate(placement).devices[-1]
    in_place = not placement.repack or placement.engine is EngineKind.IK_LLAMA
    return bool(memory.spaces.gpus) or in_place or host.margin_bytes >= host.weights_bytes


def _time(candidate: Candidate, judge: Judge) -> float:
    """Seconds by what the objective looks at: a token (of any slot), a prompt token, or a request."""
    request, speed = judge.request, candidate.speed
    prefill = speed.prefill_tokens_per_s.value
    if request.objective is Objective.PREFILL_SPEED:
        return 1 / prefill
    decode_s = _decode_s(candidate, judge)
    if request.objective is Objective.DECODE_SPEED:
        return decode_s
    return request.prompt_tokens / prefill + request.output_tokens * decode_s


def _decode_s(candidate: Candidate, judge: Judge) -> float:
    placement, speed = candidate.placement, candidate.speed
    is_repacked = placement.repack and not judge.memory.spaces.gpus
    busy = together(judge.speed, placement, speed.depth_tokens) if placement.n_parallel > 1 else None
    rate = busy or speed.decode_tokens_per_s
    # What nobody measured here counts by the least that was published of it.
    sure = LEAST_SHARE if placement.load_mtp else 1.0
    return (_REPACKED_DECODE if is_repacked else 1.0) / (sure * rate.value)
