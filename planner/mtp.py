"""Multi-token prediction: what drafting with a file's own block takes and gives; pure.

One token is drafted a step: published runs of this model on llama.cpp (PR 24868, q8_0 on one GPU) decode 1.11 to 1.28
times as fast with one, less with two or three. 60 to 63 % of drafts were accepted (model card of
GadflyII/GLM-4.7-Flash-MTP-NVFP4, whose vLLM decoded 64.7 tokens/s with one drafted token and 78.1 without).
"""

from dataclasses import dataclass, replace
from typing import Final

from glmplan.estimate import Basis, Estimate, SpeedEstimate
from glmplan.placement import Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.speed import SpeedModel

_ACCEPTED: Final = 0.6
# The block and the output layer once more, as a part of a token's time.
_DRAFT_SHARE: Final = 0.08
# The published runs spread by 7 % around their mean; engines and prompts by more.
_SPREAD: Final = 1.15
# The worst that was published against what llama.cpp's runs give on average: 64.7 / 78.1 and 1.19.
LEAST_SHARE: Final = 64.7 / 78.1 / 1.19


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafting takes (the block, and a context of its own at most) and decode with it."""

    n_bytes: int
    decode_tokens_per_s: Estimate
    times: float


def drafting(memory: MemoryModel, speed: SpeedModel, placement: Placement, without: SpeedEstimate) -> Drafting | None:
    """None for a file without the block.

    A step then computes two tokens, which reach other experts, for 1.6 tokens; where experts are in main memory or
    attention is slow, that costs more than it gives.

    Args:
        memory: the file on its devices.
        speed: the same, in time.
        placement: with drafting or without.
        without: its speed without drafting.
    """
    if not memory.model.n_nextn_layers:
        return None
    taken = [
        sum(row.needed_bytes for row in memory.estimate(replace(placement, load_mtp=load)).devices)
        for load in (False, True)
    ]
    decode = without.decode_tokens_per_s
    both = speed.decode(placement, depth_tokens=without.depth_tokens, n_busy=2).value
    times = (1 + _ACCEPTED) / (2 * decode.value / both + _DRAFT_SHARE)
    then = Estimate(
        value=decode.value * times,
        low=decode.low * times * min(LEAST_SHARE, 1 / _SPREAD),
        high=decode.high * times * _SPREAD,
        basis=Basis.ASSUMED,
    )
    return Drafting(n_bytes=taken[1] - taken[0], decode_tokens_per_s=then, times=times)


def drafted(memory: MemoryModel, speed: SpeedModel, placement: Placement, without: SpeedEstimate) -> SpeedEstimate:
    """`without` as it is when `placement` drafts."""
    found = drafting(memory, speed, placement, without) if placement.load_mtp else None
    if found is None:
        return without
    decode = found.decode_tokens_per_s
    tpot = Estimate(value=1000 / decode.value, low=1000 / decode.high, high=1000 / decode.low, basis=decode.basis)
    return replace(without, decode_tokens_per_s=decode, tpot_ms=tpot)
