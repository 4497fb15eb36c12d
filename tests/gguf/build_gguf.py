"""GGUF headers written byte by byte, so that a test can make exactly one thing wrong.

Independent of the `gguf` package on purpose: that one refuses to write most of what a hostile file holds.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
CODES = {
    UINT8: "B", INT8: "b", UINT16: "H", INT16: "h", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?",
    UINT64: "Q", INT64: "q", FLOAT64: "d",
}  # fmt: skip

F32, F16, Q4_0, Q8_0, Q4_K, Q6_K, BF16 = 0, 1, 2, 8, 12, 14, 30
SIZES = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210), BF16: (1, 2)}

Value = bool | int | float | str


class Typed(NamedTuple):
    """A value with an explicit GGUF type."""

    kind: int
    value: Value


class Array(NamedTuple):
    """An array of one GGUF type."""

    kind: int
    values: tuple[Value, ...]


class TensorSpec(NamedTuple):
    """A tensor of the table; `offset` None continues after the one before."""

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int | None = None


def text(value: str | bytes, *, order: str = "<", length: int | None = None) -> bytes:
    """A length-prefixed string; `length` lies about it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw) if length is None else length) + raw


def scalar(kind: int, value: Value, *, order: str = "<") -> bytes:
    """A value of one type, without its type number."""
    return text(str(value), order=order) if kind == STRING else struct.pack(order + CODES[kind], value)


def pair(key: str | bytes, value: Typed | Array | Value, *, order: str = "<") -> bytes:
    """One key with its value; plain Python values become bool, uint32, float32 or string."""
    head = text(key, order=order)
    if isinstance(value, Array):
        body = b"".join(scalar(value.kind, item, order=order) for item in value.values)
        return head + struct.pack(order + "IIQ", ARRAY, value.kind, len(value.values)) + body
    typed = value if isinstance(value, Typed) else Typed(_kind_of(value), value)
    return head + struct.pack(order + "I", typed.kind) + scalar(typed.kind, typed.value, order=order)


def _kind_of(value: Value) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return UINT32
    return FLOAT32 if isinstance(value, float) else STRING


def tensor_bytes(spec: TensorSpec) -> int:
    """Bytes of a tensor's data, 0 for types this builder does not know."""
    elements = 1
    for length in spec.shape:
        elements *= length
    per_block, size = SIZES.get(spec.kind, (1, 0))
    return elements // per_block * size


def tensor_row(spec: TensorSpec, offset: int, *, order: str = "<") -> bytes:
    """One row of the tensor table."""
    shape = struct.pack(f"{order}I{len(spec.shape)}Q", len(spec.shape), *spec.shape)
    return text(spec.name, order=order) + shape + struct.pack(order + "IQ", spec.kind, offset)


def assemble(
    pairs: Iterable[bytes],
    rows: Iterable[bytes],
    *,
    version: int = 3,
    order: str = "<",
    magic: bytes = b"GGUF",
    n_tensors: int | None = None,
    n_keys: int | None = None,
) -> bytes:
    """A header from ready-made parts; the counts may lie."""
    pairs, rows = list(pairs), list(rows)
    counts = (len(rows) if n_tensors is None else n_tensors, len(pairs) if n_keys is None else n_keys)
    return magic + struct.pack(order + "IQQ", version, *counts) + b"".join(pairs) + b"".join(rows)


def build(
    keys: Mapping[str, Typed | Array | Value],
    tensors: Iterable[TensorSpec] = (),
    *,
    alignment: int = 32,
    order: str = "<",
    version: int = 3,
    data: bool = True,
) -> bytes:
    """A well-formed file: header, tensor table, and zeros for data unless `data` is False."""
    rows: list[bytes] = []
    offset = 0
    for spec in tensors:
        at = offset if spec.offset is None else spec.offset
        rows.append(tensor_row(spec, at, order=order))
        offset = -(-(at + tensor_bytes(spec)) // alignment) * alignment
    pairs = [pair(key, value, order=order) for key, value in keys.items()]
    header = assemble(pairs, rows, version=version, order=order)
    if not data:
        return header
    return header + bytes(-len(header) % alignment) + bytes(offset)


def glm_keys(architecture: str = "deepseek2", **changes: Typed | Array | Value) -> dict[str, Typed | Array | Value]:
    """The keys of GLM-4.7-Flash as llama.cpp's converter writes them; `changes` by the last part of the key."""
    facts: dict[str, Typed | Array | Value] = {
        "block_count": 47,
        "context_length": 202752,
        "embedding_length": 2048,
        "feed_forward_length": 10240,
        "attention.head_count": 20,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 256,
        "attention.value_length_mla": 256,
        "attention.q_lora_rank": 768,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
        "leading_dense_block_count": 1,
        "vocab_size": 154880,
        "expert_count": 64,
        "expert_used_count": 4,
        "expert_shared_count": 1,
        "expert_feed_forward_length": 1536,
        "expert_gating_func": 2,
    }
    for name, value in changes.items():
        key = next((known for known in facts if known.rpartition(".")[2] == name), name)
        facts[key] = value
    keys: dict[str, Typed | Array | Value] = {"general.architecture": architecture, "general.type": "model"}
    return keys | {f"{architecture}.{key}": value for key, value in facts.items()}


def glm_tensors(*, absorbed: bool = True, nextn_block: int | None = None) -> list[TensorSpec]:
    """Block 0 (dense) and block 1 (experts) of GLM-4.7-Flash at full width, embedding and output."""
    tensors = [
        TensorSpec("token_embd.weight", Q4_K, (2048, 154880)),
        TensorSpec("output_norm.weight", F32, (2048,)),
        TensorSpec("output.weight", Q6_K, (2048, 154880)),
    ]
    for layer in (0, 1) if nextn_block is None else (0, 1, nextn_block):
        tensors += [TensorSpec(f"blk.{layer}.{name}", kind, shape) for name, kind, shape in _block(layer, absorbed)]
    if nextn_block is not None:
        tensors.append(TensorSpec(f"blk.{nextn_block}.nextn.eh_proj.weight", Q8_0, (4096, 2048)))
    return tensors


def _block(layer: int, absorbed: bool) -> list[tuple[str, int, tuple[int, ...]]]:
    split = [("attn_k_b.weight", Q8_0, (192, 512, 20)), ("attn_v_b.weight", Q8_0, (512, 256, 20))]
    whole: list[tuple[str, int, tuple[int, ...]]] = [("attn_kv_b.weight", Q8_0, (512, 8960))]
    attention: list[tuple[str, int, tuple[int, ...]]] = [
        ("attn_norm.weight", F32, (2048,)),
        ("attn_q_a.weight", Q4_K, (2048, 768)),
        ("attn_kv_a_mqa.weight", Q8_0, (2048, 576)),
        *(split if absorbed else whole),
        ("attn_output.weight", Q4_K, (5120, 2048)),
        ("ffn_norm.weight", F32, (2048,)),
    ]
    if layer == 0:
        return [*attention, ("ffn_up.weight", Q4_K, (2048, 10240)), ("ffn_down.weight", Q6_K, (10240, 2048))]
    return [
        *attention,
        ("ffn_gate_inp.weight", F32, (2048, 64)),
        ("exp_probs_b.bias", F32, (64,)),
        ("ffn_up_exps.weight", Q4_K, (2048, 1536, 64)),
        ("ffn_down_shexp.weight", Q6_K, (1536, 2048)),
    ]
