"""What `glmplan inspect` tells about a model file: the contract's `glmplan/inspect/1`.

Bytes are integers and exact: they are sums over the header's tensor table. `None` means the file does not say.
"""

from enum import StrEnum
from typing import Final, Literal

from glmplan.model import Attention
from glmplan.noun import noun

INSPECT_SCHEMA: Final = "glmplan/inspect/1"


class TensorGroup(StrEnum):
    """What a tensor is for, as far as it decides where a planner may put it."""

    EMBEDDING = "embedding"
    ATTENTION = "attention"
    DENSE_FFN = "dense_ffn"
    SHARED_EXPERT = "shared_expert"
    ROUTED_EXPERTS = "routed_experts"
    ROUTER = "router"
    RECURRENT = "recurrent"
    NORMS = "norms"
    NEXTN = "nextn"
    OUTPUT = "output"
    OTHER = "other"


class WarningLevel(StrEnum):
    """`warning`: this file misbehaves; `note`: good to know."""

    WARNING = "warning"
    NOTE = "note"


@noun
class GroupBytes:
    """All tensors of one group."""

    group: TensorGroup
    n_tensors: int
    n_parameters: int
    bytes: int


@noun
class TypeBytes:
    """All tensors of one GGML type."""

    type: str
    n_tensors: int
    bytes: int


@noun
class TensorBytes:
    """One tensor; `shape` has the contiguous dimension first, `offset` counts from the start of its file."""

    name: str
    group: TensorGroup
    type: str
    shape: tuple[int, ...]
    bytes: int
    offset: int
    shard: int


@noun
class ShardBytes:
    """One file of the model."""

    path: str
    file_bytes: int | None
    n_tensors: int
    data_offset: int
    bytes_read: int


@noun
class ExpertGating:
    """How router logits become weights; `stated` is False where the loader's default applies."""

    function: str | None
    stated: bool


@noun
class KvCacheBytes:
    """What one token of context takes, over all layers that cache, by cache type.

    `upper_bound` where some layers keep only a window; `note` says what is known and why the rest is not.
    """

    n_layer: int | None
    bytes_per_token: dict[str, int]
    upper_bound: bool
    note: str


@noun
class ChatTemplate:
    """What the chat template understands; `switches` are template variables that steer thinking."""

    bytes: int
    sha256: str
    tools: bool
    thinking: bool
    enable_thinking: bool
    clear_thinking: bool
    switches: tuple[str, ...]
    variants: tuple[str, ...] = ()


@noun
class FileWarning:
    """Something known about files like this one."""

    code: str
    level: WarningLevel
    message: str
    hint: str = ""


@noun
class Inspection:
    """A model file, header only."""

    schema: Literal["glmplan/inspect/1"] = INSPECT_SCHEMA
    source: str
    store: str | None
    shards: tuple[ShardBytes, ...]
    bytes_read: int
    file_bytes: int | None
    sha256: str | None
    gguf_version: int
    big_endian: bool
    alignment: int
    n_metadata_keys: int
    name: str | None
    architecture: str | None
    file_kind: str | None
    quantization: str
    quantization_stated: bool
    n_tensors: int
    n_parameters: int
    tensor_bytes: int
    bits_per_weight: float | None
    block_count: int | None
    nextn_layers: int
    n_ctx_train: int | None
    n_embd: int | None
    n_vocab: int | None
    n_expert: int
    n_expert_used: int
    expert_gating: ExpertGating | None
    attention: Attention | None
    kv_cache: KvCacheBytes
    chat_template: ChatTemplate | None
    groups: tuple[GroupBytes, ...]
    types: tuple[TypeBytes, ...]
    warnings: tuple[FileWarning, ...]
    tensors: tuple[TensorBytes, ...] | None = None
