"""Bytes of the KV cache.

MLA stores one row of `kv_lora_rank + rope` values per token and layer and no V (llama.cpp PR 19067,
src/llama-kv-cache.cpp:229-236); GQA stores K and V of every KV head. MTP blocks have no cache of their own unless
a draft context is made.
"""

from functools import lru_cache
from typing import Final

from glmplan.ggml_types import BLOCKS, GgmlType, row_bytes
from glmplan.model import Attention, MlaAttention
from glmplan.planner.layers import PLAIN_RULES, BufferRules

_CONTEXT_STEP: Final = 256


def padded_context(n_ctx: int, n_parallel: int, *, kv_unified: bool) -> tuple[int, int]:
    """(tokens per stream, streams) llama.cpp really makes of `n_ctx` (src/llama-context.cpp:290-306)."""
    step = _CONTEXT_STEP
    n_ctx = -(-n_ctx // step) * step
    if kv_unified or n_parallel == 1:
        return n_ctx, 1
    return max(-(-(n_ctx // n_parallel) // step) * step, step), n_parallel


def row_widths(attention: Attention) -> tuple[int, ...]:
    """Elements of each cached tensor's row: K only for MLA, K and V for GQA."""
    if isinstance(attention, MlaAttention):
        return (attention.kv_lora_rank + attention.rope_dimensions,)
    return (attention.n_head_kv * attention.key_length, attention.n_head_kv * attention.value_length)


@lru_cache(maxsize=4096)
def layer_bytes(attention: Attention, cache_type: GgmlType, n_tokens: int, rules: BufferRules = PLAIN_RULES) -> int:
    """Bytes of one layer's cache for `n_tokens` (all streams together), padded as the device's buffer is."""
    return sum(
        rules.tensor_bytes(cache_type, width, row_bytes(cache_type, width) * n_tokens)
        for width in row_widths(attention)
    )


def bytes_per_token(attention: Attention, cache_type: GgmlType, n_layers: int) -> int:
    """Bytes one token of context costs in all layers."""
    return n_layers * sum(row_bytes(cache_type, width) for width in row_widths(attention))


def fits_blocks(attention: Attention, cache_type: GgmlType) -> bool:
    """Whether the cache's rows are whole blocks of the type (src/llama-context.cpp:3851-3871)."""
    return all(width % BLOCKS[cache_type][0] == 0 for width in row_widths(attention))
