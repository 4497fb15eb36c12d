"""What a model file holds: shapes, types and bytes of its tensors, and the facts of its architecture."""

import math
from typing import Literal

from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.noun import noun


@noun
class MlaAttention:
    """Multi-head latent attention after absorption: one cached row of latent + rope values per layer.

    Source: DeepSeek-V2 (arXiv:2405.04434) 2.1; llama.cpp src/llama-kv-cache.cpp (`has_v = !is_mla`).
    """

    kind: Literal["mla"] = "mla"
    n_head: int
    kv_lora_rank: int
    rope_dimensions: int
    key_length_mla: int
    value_length_mla: int
    q_lora_rank: int | None = None


@noun
class GqaAttention:
    """Grouped-query attention: `n_head_kv` key and value heads cached per layer.

    Where layers differ, `n_head_kv` is the largest and `n_head_kv_by_layer` has one entry per block.
    With a `sliding_window` some layers cache only that many tokens.
    """

    kind: Literal["gqa"] = "gqa"
    n_head: int
    n_head_kv: int
    key_length: int
    value_length: int
    n_head_kv_by_layer: tuple[int, ...] = ()
    sliding_window: int | None = None


Attention = MlaAttention | GqaAttention


@noun
class Tensor:
    """One tensor of a GGUF file; `shape` has ne0 (the contiguous dimension) first."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]

    @property
    def n_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of data in the file, without padding."""
        elements, size = BLOCKS[self.type]
        return self.n_elements // elements * size


@noun
class ComputeBuffers:
    """Coefficients of llama.cpp's compute buffers for one graph, in bytes per prompt-batch token unless said.

    Read off the engine's own allocator (`no_alloc` graph reserve), see `docs/memory-model.md`.
    """

    first_layer: int
    layer: int
    layer_without_experts: int
    layer_converted_kv: int
    converted_kv_per_context_token: int
    converted_kv_constant: int
    converted_hole: int
    layer_without_flash: int
    floor_without_flash: int
    v_indices_without_flash: int
    scores_per_batch_and_context_token: int
    transposed_v_per_context_token: int
    transposed_v_hole: int
    expert_staging: int
    foreign_expert_staging: int
    foreign_expert_down: int
    foreign_hole: int
    foreign_result: int
    logits_row: int
    logits_hidden: int
    logits_hidden_short: int
    logits_short_mask: int
    logits_hole: int
    logits_hole_slack: int
    logits_hole_slack_few: int
    logits_hole_tight: int
    logits_above_experts: int
    logits_beside_converted: int
    pipeline_first: int
    pipeline_first_converted: int
    pipeline_later: int
    pipeline_later_converted: int
    pipeline_converted_hole: int
    pipeline_logits: int
    partial: int
    partial_dense: int
    partial_mask_hole: int
    partial_weight_hole: int
    partial_beside_weight: int
    partial_converted: int
    partial_converted_staging: int
    partial_converted_per_context_token: int
    partial_logits: int
    partial_without_flash: int
    partial_without_flash_per_context_token: int
    host: int
    host_indices: int
    host_pipeline: int
    host_pipeline_copy: int
    cpu_layer: int
    cpu_layer_without_flash: int
    cpu_logits_per_output: int
    cpu_logits: int
    ik_expanded_per_context_token: int = 0
    ik_expanded_per_batch_token: int = 0
    ik_expanded: int = 0


@noun
class ModelProfile:
    """A model file as a planner sees it.

    `n_layer` is `block_count` and includes `n_nextn_layers` multi-token-prediction blocks.
    `file` is `None` for a file of the catalog that nobody has located on this machine. `quality_rank` is 0 for the
    best files of the catalog; files of one rank cannot be told apart by their answers. `assumed_bytes` is 0 where the
    type of every tensor is known; otherwise the bytes of which only the sum is, not which tensors they belong to.
    """

    name: str
    architecture: str
    quantization: str
    n_layer: int
    n_nextn_layers: int
    n_layer_dense_lead: int
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_vocab: int
    n_expert: int
    n_expert_used: int
    n_ff_expert: int
    attention: Attention
    tensors: tuple[Tensor, ...]
    file: str | None
    file_bytes: int
    sha256: str | None = None
    expert_gating: str | None = None
    synthetic: bool = False
    download: str | None = None
    compute: ComputeBuffers | None = None
    quality_rank: int | None = None
    assumed_bytes: int = 0

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensor data, without padding."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def n_parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.n_elements for tensor in self.tensors)
