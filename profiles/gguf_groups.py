"""What each tensor is for, by the names llama.cpp gives them (src/llama-arch.cpp, LLM_TENSOR_NAMES)."""

import re
from typing import Final

from glmplan.inspection import TensorGroup

_BLOCK: Final = re.compile(r"(?:enc\.|dec\.)?blk\.(\d{1,9})\.(.+)")

# The first match wins; names without their `blk.N.`.
_RULES: Final[tuple[tuple[re.Pattern[str], TensorGroup], ...]] = (
    (re.compile(r"nextn\."), TensorGroup.NEXTN),
    (re.compile(r"(token_embd|per_layer_token_embd|position_embd|token_types)\."), TensorGroup.EMBEDDING),
    (re.compile(r"output(_extra)?\."), TensorGroup.OUTPUT),
    (re.compile(r"ffn_gate_inp|exp_probs_b|ffn_gate_tid2eid"), TensorGroup.ROUTER),
    (re.compile(r"ffn_\w+_shexp\."), TensorGroup.SHARED_EXPERT),
    (re.compile(r"ffn_\w+_(ch)?exps\.|ffn_(gate|up|down)\.\d+\."), TensorGroup.ROUTED_EXPERTS),
    (re.compile(r"\w*norm\w*\.|\w*_norm$"), TensorGroup.NORMS),
    (re.compile(r"ssm_|time_mix_|channel_mix_|shortconv|r_attn"), TensorGroup.RECURRENT),
    (re.compile(r"attn_|cross_attn_|indexer|wq|wk|wv|wo"), TensorGroup.ATTENTION),
    (re.compile(r"ffn_"), TensorGroup.DENSE_FFN),
)


def group_of(name: str, first_nextn_layer: int | None) -> TensorGroup:
    """The group of tensor `name`; every tensor of a multi-token-prediction block belongs to `nextn`.

    Args:
        name: as in the file, such as `blk.3.ffn_gate_exps.weight`.
        first_nextn_layer: number of the first such block; None when there is none.
    """
    match = _BLOCK.match(name)
    if match and first_nextn_layer is not None and int(match[1]) >= first_nextn_layer:
        return TensorGroup.NEXTN
    local = match[2] if match else name
    return next((group for pattern, group in _RULES if pattern.match(local)), TensorGroup.OTHER)
