"""Attention, KV cache and expert gating of a model, from the keys and tensors of its header."""

import math
from collections import Counter
from collections.abc import Collection
from typing import Final

from glmplan.ggml_types import BLOCKS, CACHE_TYPES, row_bytes
from glmplan.inspection import ExpertGating, KvCacheBytes
from glmplan.model import Attention, GqaAttention, MlaAttention
from glmplan.profiles.gguf_keys import ModelKeys

OLLAMA_ARCHITECTURE: Final = "glm4moelite"
GLM_VOCABULARY: Final = 154_880
GLM_LAYERS: Final = (47, 48)

# `enum llama_expert_gating_func_type` (src/llama-hparams.h).
_GATING: Final = {1: "softmax", 2: "sigmoid", 3: "softmax_weight", 4: "sqrt_softplus"}
# Architectures whose graph has the function built in (src/models/qwen2moe.cpp, qwen3moe.cpp).
_BUILT_IN_GATING: Final = {"qwen2moe": "softmax", "qwen3moe": "softmax"}


def is_absorbed(tensor_names: Collection[str]) -> bool:
    """Whether latent attention comes in the form that caches one latent row (`attn_k_b` and `attn_v_b`)."""
    return "blk.0.attn_k_b.weight" in tensor_names and "blk.0.attn_v_b.weight" in tensor_names


def attention_of(keys: ModelKeys, tensor_names: Collection[str]) -> Attention | None:
    """The attention of a model; None when the keys describe none (recurrent models, encoders, adapters)."""
    n_head = keys.whole(".attention.head_count")
    if not n_head:
        return None
    latent = keys.whole(".attention.kv_lora_rank")
    if latent and is_absorbed(tensor_names):
        return _mla(keys, n_head, latent)
    return _gqa(keys, n_head, latent)


def _mla(keys: ModelKeys, n_head: int, latent: int) -> MlaAttention:
    """Lengths per head stand in `*_length_mla`; Ollama's `glm4moelite` writes them the other way round."""
    row = keys.whole(".attention.key_length") or 0  # of the cache: latent and rope
    rope = keys.whole(".rope.dimension_count") or max(row - latent, 0)
    swapped = keys.architecture == OLLAMA_ARCHITECTURE
    key, value = (".attention.key_length", ".attention.value_length")
    if not swapped:
        key, value = key + "_mla", value + "_mla"
    return MlaAttention(
        n_head=n_head,
        kv_lora_rank=latent,
        rope_dimensions=rope,
        key_length_mla=keys.whole(key) or 0,
        value_length_mla=keys.whole(value) or 0,
        q_lora_rank=keys.whole(".attention.q_lora_rank") or None,
    )


def _gqa(keys: ModelKeys, n_head: int, latent: int | None) -> GqaAttention:
    """Lengths default to `n_embd / n_head`, key-value heads to `n_head` (src/llama-model.cpp, load_hparams).

    Latent attention that was not absorbed caches full keys and values of every head.
    """
    per_head = (keys.whole(".embedding_length") or 0) // n_head
    by_layer = keys.by_layer(".attention.head_count_kv") or keys.by_layer(".attention.head_count") or (n_head,)
    key, value = keys.whole(".attention.key_length"), keys.whole(".attention.value_length")
    if latent:
        by_layer = (n_head,)
        key = keys.whole(".attention.key_length_mla") if keys.architecture != OLLAMA_ARCHITECTURE else key
        value = keys.whole(".attention.value_length_mla") if keys.architecture != OLLAMA_ARCHITECTURE else value
        key, value = key or keys.whole(".attention.key_length"), value or keys.whole(".attention.value_length")
    return GqaAttention(
        n_head=n_head,
        n_head_kv=max(by_layer),
        key_length=per_head if key is None else key,
        value_length=per_head if value is None else value,
        n_head_kv_by_layer=by_layer if len(set(by_layer)) > 1 else (),
        sliding_window=keys.whole(".attention.sliding_window") or None,
    )


def kv_cache_of(keys: ModelKeys, attention: Attention | None) -> KvCacheBytes:
    """Bytes of KV cache for one token of context over all layers that cache, by cache type.

    MLA: one key row of `kv_lora_rank + rope` per layer and no values (llama.cpp since January 2026, PR 19067).
    GQA: `n_head_kv * key_length` plus `n_head_kv * value_length`. Prediction (nextn) blocks cache nothing unless
    they are used.
    """
    blocks = keys.whole(".block_count")
    if attention is None or blocks is None:
        return _unknown("the header describes no attention")
    n_main = max(blocks - (keys.whole(".nextn_predict_layers") or 0), 0)
    if isinstance(attention, MlaAttention):
        row = attention.kv_lora_rank + attention.rope_dimensions
        note = "latent row of K only; V is read from it"
        if keys.whole(".attention.indexer.key_length"):
            note += "; what the sparse-attention indexer caches is not counted"
        return _cache_bytes(n_main, ((row, n_main),), attention.kv_lora_rank, upper_bound=False, note=note)
    return _gqa_cache(keys, attention, n_main)


def _gqa_cache(keys: ModelKeys, attention: GqaAttention, n_main: int) -> KvCacheBytes:
    by_heads = Counter(attention.n_head_kv_by_layer[:n_main])
    if not by_heads:
        every = keys.whole(".full_attention_interval")
        if every is None and keys.names(".ssm."):
            return _unknown("recurrent layers among the blocks; the header does not say which layers cache")
        by_heads[attention.n_head_kv] = n_main // every if every else n_main
    rows: Counter[int] = Counter()
    for n_head_kv, n_layer in by_heads.items():
        for length in (attention.key_length, attention.value_length):
            rows[n_head_kv * length] += n_layer
    note = "K and V of every key-value head"
    if attention.sliding_window is not None:
        note += f"; upper bound, layers with a window keep {attention.sliding_window} tokens"
    return _cache_bytes(
        sum(n_layer for n_head_kv, n_layer in by_heads.items() if n_head_kv),
        tuple(rows.items()),
        math.gcd(attention.key_length, attention.value_length),
        upper_bound=attention.sliding_window is not None,
        note=note,
    )


def _cache_bytes(
    n_layer: int, rows: tuple[tuple[int, int], ...], head_length: int, *, upper_bound: bool, note: str
) -> KvCacheBytes:
    """Sum of (elements in a row, number of such rows); types whose blocks do not divide a row are left out."""
    by_type: dict[str, int] = {}
    for name, ggml_type in CACHE_TYPES.items():
        per_block = BLOCKS[ggml_type][0]
        if head_length % per_block == 0 and all(elements % per_block == 0 for elements, _ in rows):
            by_type[name] = sum(row_bytes(ggml_type, elements) * count for elements, count in rows)
    return KvCacheBytes(n_layer=n_layer, bytes_per_token=by_type, upper_bound=upper_bound, note=note)


def _unknown(why: str) -> KvCacheBytes:
    return KvCacheBytes(n_layer=None, bytes_per_token={}, upper_bound=False, note=why)


def expert_gating_of(keys: ModelKeys, n_vocab: int | None) -> ExpertGating | None:
    """How the router weighs experts, None without experts.

    A deepseek2 file that does not say gets sigmoid when it has GLM's vocabulary and layers, softmax otherwise
    (src/models/deepseek2.cpp:23-32).
    """
    if not keys.whole(".expert_count"):
        return None
    number = keys.whole(".expert_gating_func")
    if number:
        return ExpertGating(function=_GATING.get(number, f"number {number}"), stated=True)
    if keys.architecture in {"deepseek2", OLLAMA_ARCHITECTURE}:
        return ExpertGating(function="sigmoid" if is_glm_flash(keys, n_vocab) else "softmax", stated=False)
    return ExpertGating(function=_BUILT_IN_GATING.get(keys.architecture or ""), stated=False)


def is_glm_flash(keys: ModelKeys, n_vocab: int | None) -> bool:
    """Whether this is GLM-4.7-Flash, by the loader's own test: its vocabulary and number of layers."""
    blocks = keys.whole(".block_count") or 0
    n_main = blocks - (keys.whole(".nextn_predict_layers") or 0)
    known = keys.architecture in {"deepseek2", OLLAMA_ARCHITECTURE}
    return known and n_main in GLM_LAYERS and n_vocab == GLM_VOCABULARY
