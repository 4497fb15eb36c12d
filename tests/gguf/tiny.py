"""A GGUF of about 2 MB with the shape of GLM-4.7-Flash (deepseek2, MLA, experts) that real engines load and run.

For fault tests: loads in well under a second. Its weights are seeded noise, so its text is noise.
Keys as llama.cpp's converter writes them (conversion/deepseek.py); source of the tensor list:
llama.cpp src/models/deepseek2.cpp `load_arch_tensors`.
"""

from pathlib import Path
from typing import Any

N_LAYER, N_EMBD, N_HEAD, N_VOCAB = 3, 64, 4, 512
Q_RANK, KV_RANK, ROPE, NOPE, V_LENGTH = 32, 64, 32, 32, 32
N_FF, N_FF_EXPERT, N_EXPERT, N_EXPERT_USED = 128, 32, 8, 2
N_CTX_TRAIN = 8192
EOS = N_VOCAB - 1


def write_tiny(path: Path, *, chat_template: str | None = None) -> None:
    """Write the model to `path`; the same bytes every time."""
    import gguf

    writer = gguf.GGUFWriter(path, "deepseek2")
    for key, value in _integers().items():
        writer.add_uint32(f"deepseek2.{key}", value)
    writer.add_float32("deepseek2.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32("deepseek2.rope.freq_base", 1e6)
    writer.add_float32("deepseek2.expert_weights_scale", 1.8)
    writer.add_bool("deepseek2.expert_weights_norm", True)
    writer.add_string("general.name", "tiny deepseek2 (synthetic weights)")
    _add_tokenizer(writer)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    _add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _integers() -> dict[str, int]:
    return {
        "block_count": N_LAYER,
        "context_length": N_CTX_TRAIN,
        "embedding_length": N_EMBD,
        "feed_forward_length": N_FF,
        "attention.head_count": N_HEAD,
        "attention.head_count_kv": 1,
        "attention.key_length": KV_RANK + ROPE,
        "attention.value_length": KV_RANK,
        "attention.key_length_mla": NOPE + ROPE,
        "attention.value_length_mla": V_LENGTH,
        "attention.q_lora_rank": Q_RANK,
        "attention.kv_lora_rank": KV_RANK,
        "rope.dimension_count": ROPE,
        "leading_dense_block_count": 1,
        "vocab_size": N_VOCAB,
        "expert_count": N_EXPERT,
        "expert_used_count": N_EXPERT_USED,
        "expert_shared_count": 1,
        "expert_feed_forward_length": N_FF_EXPERT,
        "expert_gating_func": 2,
    }


def _add_tokenizer(writer: Any) -> None:
    """Byte-level BPE: 256 printable stand-ins for bytes (GPT-2's table), numbered words, one end token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        stand_ins.setdefault(byte, chr(256 + len(stand_ins) - len(printable)))
    texts = [stand_ins[byte] for byte in range(256)] + [f"Ġw{number}" for number in range(256, N_VOCAB)]
    texts[EOS] = "<|endoftext|>"
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("glm4")
    writer.add_token_list(texts)
    writer.add_token_types([1] * (N_VOCAB - 1) + [3])
    writer.add_token_merges(["Ġ w"])
    writer.add_eos_token_id(EOS)


def _add_tensors(writer: Any) -> None:
    import numpy as np

    noise = np.random.default_rng(47)
    for name, shape in _shapes().items():
        norm = name.endswith("norm.weight")
        values = np.ones(shape) if norm else noise.normal(0.0, 0.05, shape)
        writer.add_tensor(name, values.astype(np.float32))


def _shapes() -> dict[str, tuple[int, ...]]:
    """Shapes with the contiguous dimension last (numpy's order; GGUF's reversed)."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (N_VOCAB, N_EMBD),
        "output.weight": (N_VOCAB, N_EMBD),
        "output_norm.weight": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        tensors = _attention() | (_experts() if layer else _dense())
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in tensors.items()}
    return shapes


def _attention() -> dict[str, tuple[int, ...]]:
    return {
        "attn_norm.weight": (N_EMBD,),
        "attn_q_a_norm.weight": (Q_RANK,),
        "attn_kv_a_norm.weight": (KV_RANK,),
        "attn_q_a.weight": (Q_RANK, N_EMBD),
        "attn_q_b.weight": (N_HEAD * (NOPE + ROPE), Q_RANK),
        "attn_kv_a_mqa.weight": (KV_RANK + ROPE, N_EMBD),
        "attn_k_b.weight": (N_HEAD, KV_RANK, NOPE),
        "attn_v_b.weight": (N_HEAD, V_LENGTH, KV_RANK),
        "attn_output.weight": (N_EMBD, N_HEAD * V_LENGTH),
        "ffn_norm.weight": (N_EMBD,),
    }


def _dense() -> dict[str, tuple[int, ...]]:
    return {
        "ffn_gate.weight": (N_FF, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
    }


def _experts() -> dict[str, tuple[int, ...]]:
    return {
        "ffn_gate_inp.weight": (N_EXPERT, N_EMBD),
        "exp_probs_b.bias": (N_EXPERT,),
        "ffn_gate_exps.weight": (N_EXPERT, N_FF_EXPERT, N_EMBD),
        "ffn_up_exps.weight": (N_EXPERT, N_FF_EXPERT, N_EMBD),
        "ffn_down_exps.weight": (N_EXPERT, N_EMBD, N_FF_EXPERT),
        "ffn_gate_shexp.weight": (N_FF_EXPERT, N_EMBD),
        "ffn_up_shexp.weight": (N_FF_EXPERT, N_EMBD),
        "ffn_down_shexp.weight": (N_EMBD, N_FF_EXPERT),
    }
