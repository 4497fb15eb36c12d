"""The last touches on a chosen placement: batch size, layers per card, and the last free megabytes of GPU memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from math import inf
from typing import Final

from glmplan.engine import EngineKind
from glmplan.placement import Placement
from glmplan.planner.batches import LARGEST_BATCH, fill_with_batch
from glmplan.planner.candidates import BATCH, UBATCH
from glmplan.planner.judging import Candidate, Judge, keeps_floor, score_of
from glmplan.planner.memory import MemoryModel
from glmplan.planner.objective import Score
from glmplan.planner.offload import host_expert_bytes, keep_experts, one_tensor_less
from glmplan.planner.variants import best_variant, variants
from glmplan.units import MIB

_SHIFTS: Final = (1, 2, 3, 4)
_ROUNDS: Final = 3
# Less idle than this is not worth another round; from this on a card's memory counts as idle.
_IDLE_BYTES: Final = 48 * MIB
_MUCH_IDLE_BYTES: Final = 64 * MIB
# Of the time this much may be left when a card's buffers shrink: 0.94 was the least on 4,000 random machines of cards.
_SHRUNK: Final = 0.85


def refined(best: Candidate, judge: Judge) -> Candidate:
    """`best`, or a better one of the same file, cache type and context."""
    memory = judge.memory
    if best.placement.engine is EngineKind.LLAMA_CPP_PYTHON:
        return best
    if not memory.spaces.gpus or not host_expert_bytes(memory, best.placement):
        return best_variant(best, judge)
    found = judge.judge(fill_with_batch(memory, _balanced_cards(memory, best.placement)))
    if _idle_bytes(found) >= _MUCH_IDLE_BYTES:
        found = _with_one_tensor_less(found, judge)
    return found if keeps_floor(found, best, judge.request) else best


def at_most(candidate: Candidate, judge: Judge) -> Score:
    """What no `refined` form of `candidate` exceeds: every knob turned as if memory were no matter.

    Layers moved between cards bring back from main memory what is idle of the cards' memory, and with it at most that
    part of the time; a little more where a card's buffers shrink with its layers.
    """
    placement, memory = candidate.placement, judge.memory
    in_host = host_expert_bytes(memory, placement) if memory.spaces.gpus else 0
    if in_host:
        tried = [placement, replace(placement, n_ubatch=max(placement.n_ubatch, LARGEST_BATCH), n_batch=LARGEST_BATCH)]
        idle = sum(row.margin_bytes for row in candidate.memory.devices[:-1]) if len(memory.spaces.gpus) > 1 else 0
        kept = max(0.0, 1.0 - max(0, idle) / in_host) * (_SHRUNK if len(memory.spaces.gpus) > 1 else 1.0)
    else:
        tried, kept = [placement, *(variant for variant, _ in variants(placement, judge))], 1.0
    scores = [score_of(judge.judge(each, candidate.memory), judge.request) for each in tried]
    return replace(
        scores[0],
        decode_tokens_per_s=max(score.decode_tokens_per_s for score in scores) / kept if kept else inf,
        prefill_tokens_per_s=max(score.prefill_tokens_per_s for score in scores) / kept if kept else inf,
        request_s=kept * min(score.request_s for score in scores),
    )


def _balanced_cards(memory: MemoryModel, placement: Placement) -> Placement:
    """Layers moved between neighbouring cards while that leaves fewer experts in main memory or less memory idle."""
    if len(memory.spaces.gpus) < 2:
        return placement
    best, cost = placement, _cost(memory, placement)
    for _ in range(_ROUNDS):
        before = cost
        for shifted in list(_shifted(best.tensor_split)):
            found = keep_experts(memory, replace(best, tensor_split=shifted))
            if found is not None and (found_cost := _cost(memory, found)) < cost:
                best, cost = found, found_cost
        if cost == before or cost[1] < _IDLE_BYTES:
            break
    return best


def _idle_bytes(candidate: Candidate) -> int:
    return max(row.margin_bytes for row in candidate.memory.devices[:-1])


def _with_one_tensor_less(best: Candidate, judge: Judge) -> Candidate:
    """Cards whose gaps no common batch fills: one more expert tensor in main memory, if the longer batch repays it."""
    memory, found = judge.memory, [best]
    for split in (best.placement.tensor_split, *_shifted(best.placement.tensor_split)):
        kept = keep_experts(memory, replace(best.placement, tensor_split=split, n_ubatch=UBATCH, n_batch=BATCH))
        found += [judge.judge(fill_with_batch(memory, placement)) for placement in one_tensor_less(memory, kept)]

    def key(candidate: Candidate) -> tuple[int, float]:
        return host_expert_bytes(memory, candidate.placement), score_of(candidate, judge.request).request_s

    even = min((each for each in found if _idle_bytes(each) < _MUCH_IDLE_BYTES), key=key, default=best)
    return even if key(even)[1] < key(best)[1] else best


def _cost(memory: MemoryModel, placement: Placement) -> tuple[int, int]:
    filled = memory.estimate(fill_with_batch(memory, placement))
    return host_expert_bytes(memory, placement), max(row.margin_bytes for row in filled.devices[:-1])


def _shifted(split: Sequence[float]) -> Iterator[tuple[float, ...]]:
    for giver, taker in permutations(range(len(split)), 2):
        for shift in _SHIFTS:
            changed = list(split)
            changed[giver] -= shift
            changed[taker] += shift
            if min(changed) >= 0:
                yield tuple(changed)
