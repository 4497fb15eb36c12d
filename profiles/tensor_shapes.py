"""Tensors of a catalog model by name and shape, from its hyper-parameters alone."""

from collections.abc import Mapping
from typing import Any

Shapes = list[tuple[str, tuple[int, ...]]]


def tensor_shapes(facts: Mapping[str, Any], n_layer: int, n_nextn: int) -> Shapes:
    """Names and shapes of all tensors, in file order.

    Sources: llama.cpp src/models/deepseek2.cpp:84-160 (MLA), src/models/qwen3moe.cpp and glm4-moe.cpp (GQA),
    src/models/nemotron-h.cpp (recurrent layers, attention and experts by turns).
    """
    hyper = facts["hyper_parameters"]
    n_embd, n_vocab = hyper["n_embd"], hyper["n_vocab"]
    table: Shapes = [
        ("token_embd.weight", (n_embd, n_vocab)),
        ("output_norm.weight", (n_embd,)),
        ("output.weight", (n_embd, n_vocab)),
    ]
    for layer in range(n_layer + n_nextn):
        if "layer_pattern" in hyper:
            names = _hybrid_shapes(hyper, hyper["layer_pattern"][layer])
        else:
            attention = _mla_shapes(hyper) if hyper["attention"]["kind"] == "mla" else _gqa_shapes(hyper)
            names = [*attention, *_ffn_shapes(hyper, dense=layer < hyper["n_layer_dense_lead"])]
        if layer >= n_layer:
            names += _nextn_shapes(n_embd, n_vocab)
        table += [(f"blk.{layer}.{name}", shape) for name, shape in names]
    return table


def _mla_shapes(hyper: Mapping[str, Any]) -> Shapes:
    attention, n_embd = hyper["attention"], hyper["n_embd"]
    heads, latent, rope = attention["n_head"], attention["kv_lora_rank"], attention["rope_dimensions"]
    key, value, q_rank = attention["key_length_mla"], attention["value_length_mla"], attention["q_lora_rank"]
    return [
        ("attn_norm.weight", (n_embd,)),
        ("attn_q_a_norm.weight", (q_rank,)),
        ("attn_kv_a_norm.weight", (latent,)),
        ("attn_q_a.weight", (n_embd, q_rank)),
        ("attn_q_b.weight", (q_rank, heads * key)),
        ("attn_kv_a_mqa.weight", (n_embd, latent + rope)),
        ("attn_k_b.weight", (key - rope, latent, heads)),
        ("attn_v_b.weight", (latent, value, heads)),
        ("attn_output.weight", (heads * value, n_embd)),
        ("ffn_norm.weight", (n_embd,)),
    ]


def _gqa_shapes(hyper: Mapping[str, Any]) -> Shapes:
    """`attention_bias`: projections have biases, and the norm before the experts is named after the attention."""
    attention, n_embd = hyper["attention"], hyper["n_embd"]
    key, value = attention["key_length"], attention["value_length"]
    heads, kv_heads = attention["n_head"], attention["n_head_kv"]
    projections: Shapes = [
        ("attn_q", (n_embd, heads * key)),
        ("attn_k", (n_embd, kv_heads * key)),
        ("attn_v", (n_embd, kv_heads * value)),
    ]
    biased = hyper.get("attention_bias", False)
    biases: Shapes = [(f"{name}.bias", shape[1:]) for name, shape in projections] if biased else []
    return [
        ("attn_norm.weight", (n_embd,)),
        *((f"{name}.weight", shape) for name, shape in projections),
        *biases,
        ("attn_output.weight", (heads * value, n_embd)),
        ("attn_q_norm.weight", (key,)),
        ("attn_k_norm.weight", (key,)),
        ("post_attention_norm.weight" if biased else "ffn_norm.weight", (n_embd,)),
    ]


def _hybrid_shapes(hyper: Mapping[str, Any], kind: str) -> Shapes:
    """One block of a hybrid model: `M` recurrent (Mamba 2), `*` attention, `E` experts; each has one norm."""
    n_embd, norm = hyper["n_embd"], ("attn_norm.weight", (hyper["n_embd"],))
    if kind == "M":
        return [norm, *_mamba2_shapes(hyper["recurrence"], n_embd)]
    if kind == "*":
        attention = hyper["attention"]
        queries, caches = (
            attention["n_head"] * attention["key_length"],
            attention["n_head_kv"] * attention["key_length"],
        )
        return [
            norm,
            ("attn_q.weight", (n_embd, queries)),
            ("attn_k.weight", (n_embd, caches)),
            ("attn_v.weight", (n_embd, caches)),
            ("attn_output.weight", (queries, n_embd)),
        ]
    experts, wide, shared = hyper["n_expert"], hyper["n_ff_expert"], hyper["n_ff_shared"]
    return [
        norm,
        ("ffn_gate_inp.weight", (n_embd, experts)),
        ("exp_probs_b.bias", (experts,)),
        ("ffn_up_exps.weight", (n_embd, wide, experts)),
        ("ffn_down_exps.weight", (wide, n_embd, experts)),
        ("ffn_up_shexp.weight", (n_embd, shared)),
        ("ffn_down_shexp.weight", (shared, n_embd)),
    ]


def _mamba2_shapes(recurrence: Mapping[str, int], n_embd: int) -> Shapes:
    inner, heads, groups = recurrence["inner_size"], recurrence["time_step_rank"], recurrence["group_count"]
    mixed = inner + 2 * groups * recurrence["state_size"]
    return [
        ("ssm_in.weight", (n_embd, inner + mixed + heads)),
        ("ssm_conv1d.weight", (recurrence["conv_kernel"], mixed)),
        ("ssm_conv1d.bias", (mixed,)),
        ("ssm_dt.bias", (heads,)),
        ("ssm_a", (1, heads)),
        ("ssm_d", (1, heads)),
        ("ssm_norm.weight", (inner // groups, groups)),
        ("ssm_out.weight", (inner, n_embd)),
    ]


def _ffn_shapes(hyper: Mapping[str, Any], *, dense: bool) -> Shapes:
    n_embd, n_ff = hyper["n_embd"], hyper["n_ff"]
    if dense:
        return [
            ("ffn_gate.weight", (n_embd, n_ff)),
            ("ffn_up.weight", (n_embd, n_ff)),
            ("ffn_down.weight", (n_ff, n_embd)),
        ]
    wide, experts = hyper["n_ff_expert"], hyper["n_expert"]
    routed: Shapes = [
        ("ffn_gate_inp.weight", (n_embd, experts)),
        ("ffn_gate_exps.weight", (n_embd, wide, experts)),
        ("ffn_up_exps.weight", (n_embd, wide, experts)),
        ("ffn_down_exps.weight", (wide, n_embd, experts)),
    ]
    if not hyper["n_expert_shared"]:
        return routed
    shared = wide * hyper["n_expert_shared"]
    return [
        routed[0],
        ("exp_probs_b.bias", (experts,)),
        *routed[1:],
        ("ffn_gate_shexp.weight", (n_embd, shared)),
        ("ffn_up_shexp.weight", (n_embd, shared)),
        ("ffn_down_shexp.weight", (shared, n_embd)),
    ]


def _nextn_shapes(n_embd: int, n_vocab: int) -> Shapes:
    return [
        ("nextn.eh_proj.weight", (2 * n_embd, n_embd)),
        ("nextn.enorm.weight", (n_embd,)),
        ("nextn.hnorm.weight", (n_embd,)),
        ("nextn.embed_tokens.weight", (n_embd, n_vocab)),
        ("nextn.shared_head_head.weight", (n_embd, n_vocab)),
        ("nextn.shared_head_norm.weight", (n_embd,)),
    ]
