"""Multi-token prediction: what drafting with a file's own block would take and give; pure.

One token is drafted a step: published runs of this model on llama.cpp (PR 24868, q8_0 on one GPU) decode 1.11 to 1.28
times as fast with one, less with two or three. 60 to 63 % of drafts were accepted (model card of
GadflyII/GLM-4.7-Flash-MTP-NVFP4, whose vLLM ran slower with drafting than without).
"""

from dataclasses import dataclass, replace
from typing import Final

from glmplan.estimate import Basis, Estimate
from glmplan.ggml_types import cache_type
from glmplan.planner.judging import Candidate, Judge
from glmplan.planner.kv_cache import layer_bytes

_ACCEPTED: Final = 0.6
# The block and the output layer once more, as a part of a token's time.
_DRAFT_SHARE: Final = 0.08
# The published runs spread by 7 % around their mean; engines and prompts by more.
_SPREAD: Final = 1.15


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafting takes (the block, a layer of cache) and decode with it."""

    n_bytes: int
    decode_tokens_per_s: Estimate
    times: float


def drafting(best: Candidate, judge: Judge) -> Drafting | None:
    """None for a file without the block.

    A step then computes two tokens, which reach other experts, for 1.6 tokens; where experts are in main memory or
    attention is slow, that costs more than it gives.
    """
    if not best.model.n_nextn_layers:
        return None
    placement, decode = best.placement, best.speed.decode_tokens_per_s
    loaded = judge.memory.estimate(replace(placement, load_mtp=True))
    block = sum(row.weights_bytes for row in loaded.devices) - sum(row.weights_bytes for row in best.memory.devices)
    cache = layer_bytes(best.model.attention, cache_type(placement.cache_type_k), placement.n_ctx)
    both = judge.speed.decode(placement, depth_tokens=best.speed.depth_tokens, n_busy=2).value
    times = (1 + _ACCEPTED) / (2 * decode.value / both + _DRAFT_SHARE)
    then = Estimate(
        value=decode.value * times,
        low=decode.low * times / _SPREAD,
        high=decode.high * times * _SPREAD,
        basis=Basis.ASSUMED,
    )
    return Drafting(n_bytes=block + cache * best.model.n_nextn_layers, decode_tokens_per_s=then, times=times)
