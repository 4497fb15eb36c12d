"""Compute buffers of llama.cpp: what a graph needs beside weights and cache, on devices and in host memory.

The allocator's peak is a maximum of linear forms in the prompt batch `u`, the context `n` and the rows of logits;
their coefficients are facts of the model (`ModelProfile.compute`). How each form arises, and how exact it is, is
told in docs/memory-model.md. Sources: llama.cpp src/llama-context.cpp:615-767 (graph reserve), ggml/src/ggml-alloc.c,
ggml/src/ggml-backend.cpp:969-1800 (op offload, split inputs, pipeline copies).
"""

from dataclasses import dataclass
from typing import Final

from glmplan.model import ComputeBuffers

PIPELINE_COPIES: Final = 4
# GGML_OP_OFFLOAD_MIN_BATCH: shorter batches are computed where their weights are.
OP_OFFLOAD_MIN_BATCH: Final = 32
_GPU_ROUNDING: Final = 128
_HOST_STEP: Final = 32
_PARTIAL_SLACK: Final = 2 * 1024 * 1024
# What staging tensors beside a converted cache leaves in holes, at most.
_PARTIAL_FRAGMENTS: Final = 42 * 1024 * 1024
# And what long converted caches leave on top (19 MiB at worst in 4,500 random configurations).
_CONVERTED_SLACK: Final = 22 * 1024 * 1024


# Fewer outputs than this part of the batch leave a second hole that holds the experts' activations.
_WIDE_OUTPUTS: Final = 0.6


@dataclass(frozen=True, slots=True)
class GraphShape:
    """What sizes a graph: tokens per batch, context, outputs, and which attention runs.

    `n_ctx_stream` tokens in each of `n_stream` caches; `converted_kv`: the cache is not f16, and CUDA's flash
    attention converts one layer at a time to f16. `kv_staged_bytes`: what a GPU copies in of one layer's cache when
    that is in main memory, K and V (for MLA the view of K counts again as V).
    `wide_cache`: its elements take two bytes or more. `expanded_bytes`: what an engine that expands the whole latent
    cache of a layer for prompts needs for that.
    """

    n_ubatch: int
    n_ctx_stream: int
    n_stream: int
    n_outputs: int
    flash_attn: bool
    converted_kv: bool
    kv_staged_bytes: int
    wide_cache: bool
    expanded_bytes: int = 0

    @property
    def n_kv(self) -> int:
        """Tokens of all streams together."""
        return self.n_ctx_stream * self.n_stream

    @property
    def is_offloadable(self) -> bool:
        """Long enough to copy weights in for: as many tokens in each stream."""
        return self.n_ubatch >= OP_OFFLOAD_MIN_BATCH * self.n_stream

    @property
    def mask_bytes(self) -> int:
        """Attention mask: f16 with flash attention, f32 without (src/llama-graph.cpp:29-46)."""
        return self.n_ctx_stream * self.n_ubatch * (2 if self.flash_attn else 4)


@dataclass(frozen=True, slots=True)
class DeviceRole:
    """A GPU's part of the graph.

    Args:
        first: holds layer 0 (the dense one).
        n_layers: repeating layers it holds; with none it may still hold the output layer.
        has_output: holds the output layer.
        without_experts: the experts of all its layers are in host memory.
    """

    first: bool
    n_layers: int
    has_output: bool
    without_experts: bool


@dataclass(frozen=True, slots=True)
class Staging:
    """Host tensors that the first GPU copies in to compute with (op offload), in bytes.

    Args:
        own: largest expert tensor in host memory of a layer this GPU holds.
        foreign: largest pair of consecutive expert tensors of layers other GPUs hold.
        foreign_single: the largest of them alone.
        cpu_layers: largest tensor of layers whose cache is in host memory too; None when there are none.
        attention: largest attention tensor of those layers.
        output: the output projection, when it is in host memory (no layer is offloaded at all).
        beside_logits: this GPU holds the output layer too.
    """

    own: int
    foreign: int
    cpu_layers: int | None
    output: int = 0
    beside_logits: bool = False
    foreign_single: int = 0
    attention: int = 0


def _without_flash(k: ComputeBuffers, shape: GraphShape, per_token: int, copies: int = 0) -> int:
    """Scores of every head in f32; the transposed V fits into a freed hole of long batches. `copies`: of inputs."""
    scores = k.scores_per_batch_and_context_token * shape.n_ctx_stream * shape.n_ubatch
    transposed = k.transposed_v_per_context_token * shape.n_kv
    hole = k.transposed_v_hole * shape.n_ubatch
    with_scores = per_token * shape.n_ubatch + scores + (transposed if transposed > hole else 0)
    return max(with_scores, k.floor_without_flash * shape.n_ubatch) + copies * shape.n_ubatch


def _less(per_token: int, saved: int) -> int:
    """`per_token` without what the experts needed, where they were a part of it at all."""
    return per_token - saved if 2 * saved < per_token else per_token


def _unconverted_hole(k: ComputeBuffers, shape: GraphShape, *, without_experts: bool = False) -> int:
    """A short bf16 cache's f16 copy that finds no hole beside the activations (grouped-query attention).

    Experts' activations leave one for a copy shorter than it.
    """
    if not (shape.flash_attn and shape.converted_kv and shape.wide_cache):
        return 0
    hole = k.converted_hole * shape.n_ubatch
    return hole if without_experts else min(k.converted_kv_per_context_token * shape.n_kv, hole)


def _rotation(k: ComputeBuffers, shape: GraphShape) -> int:
    """Matrices that rotate the rows of a quantised cache (not of a bf16 one, and not under MLA)."""
    return 0 if shape.wide_cache else k.converted_kv_constant


def _logits(k: ComputeBuffers, shape: GraphShape) -> int:
    """Rows of logits and what is left below them of the last layer's activations of the same tokens.

    The mask leaves a hole. One that just holds the experts' activations keeps the rows above all of them.
    """
    u, o, mask = shape.n_ubatch, shape.n_outputs, shape.mask_bytes
    below = k.logits_hidden
    if o < u or mask < k.logits_short_mask * u:
        below = max(below, k.logits_hidden_short)
    slack = k.logits_hole_slack if o > _WIDE_OUTPUTS * u else k.logits_hole_slack_few
    if k.logits_hole * o - slack * u <= mask <= k.logits_hole * o - k.logits_hole_tight * u:
        below = k.logits_above_experts
    return (k.logits_row + below) * o


def _logits_beside_cache(k: ComputeBuffers, shape: GraphShape) -> int:
    """Logits, or logits beside what is left of the converted cache of the layer before."""
    if not (shape.flash_attn and shape.converted_kv):
        return _logits(k, shape)
    converted = k.converted_kv_per_context_token * shape.n_kv + k.logits_beside_converted * shape.n_ubatch
    return max(_logits(k, shape), k.logits_row * shape.n_outputs + converted)


def device_bytes(k: ComputeBuffers, shape: GraphShape, role: DeviceRole) -> int:
    """Compute buffer of a GPU that holds its layers' caches, without pipeline copies and without staging."""
    if not role.n_layers:
        return _logits(k, shape) + _GPU_ROUNDING if role.has_output else 0
    saved = k.layer - k.layer_without_experts if role.without_experts and not role.first else 0
    u = shape.n_ubatch
    if not shape.flash_attn:
        attention = _without_flash(k, shape, _less(k.layer_without_flash, saved))
    else:
        attention = (k.first_layer if role.first else k.layer - saved) * u
        if shape.converted_kv:
            converted = _less(k.layer_converted_kv, saved) * u + k.converted_kv_per_context_token * shape.n_kv
            attention = max(attention, converted) + _rotation(k, shape)
    peak = attention + shape.mask_bytes + _unconverted_hole(k, shape, without_experts=saved > 0) + _GPU_ROUNDING
    return max(peak, _logits_beside_cache(k, shape)) if role.has_output else peak


def pipeline_device_bytes(k: ComputeBuffers, shape: GraphShape, role: DeviceRole) -> int:
    """Compute buffer of a GPU with four copies of every split input (src/llama-context.cpp:430-457)."""
    if not role.n_layers:
        copies = PIPELINE_COPIES * k.host_pipeline * shape.n_outputs if role.has_output else 0
        return device_bytes(k, shape, role) + copies
    u, masks = shape.n_ubatch, PIPELINE_COPIES * shape.mask_bytes
    extra = k.pipeline_first if role.first else k.pipeline_later
    converted_extra = k.pipeline_first_converted if role.first else k.pipeline_later_converted
    if not shape.flash_attn:
        indices = (PIPELINE_COPIES - 1) * k.v_indices_without_flash
        peak = _without_flash(k, shape, k.layer_without_flash, converted_extra + indices)
    else:
        peak = ((k.first_layer if role.first else k.layer) + extra) * u
        scratch = k.converted_kv_per_context_token * shape.n_kv
        # A short cache's f16 copy fits into the hole that the input copies leave.
        if shape.converted_kv and scratch > k.pipeline_converted_hole * u:
            peak = max(peak, (k.layer_converted_kv + converted_extra) * u + scratch)
        peak += PIPELINE_COPIES * _rotation(k, shape) + _unconverted_hole(k, shape)
    peak += masks + _GPU_ROUNDING
    if role.has_output:
        rows = (k.logits_row + k.logits_hidden) * shape.n_outputs
        peak = max(peak, rows + k.pipeline_logits * u + masks)
    return peak


def staging_bytes(k: ComputeBuffers, shape: GraphShape, staging: Staging) -> int:
    """What op offload needs on the first GPU at its peak, other layers' needs apart; 0 without host tensors."""
    u, mask = shape.n_ubatch, shape.mask_bytes
    peak = 0
    if staging.own:
        peak = staging.own + k.expert_staging * u + mask + _unconverted_hole(k, shape)
    if staging.foreign:
        pair = staging.foreign + k.foreign_expert_staging * u
        if staging.foreign - staging.foreign_single < k.foreign_hole * u:  # where the first was is no room for a result
            pair += k.foreign_result * u
        peak = max(peak, pair, staging.foreign_single + k.foreign_expert_down * u)
    if staging.cpu_layers is not None:
        peak = max(peak, _partial_bytes(k, shape, max(staging.cpu_layers, staging.own), staging.attention))
        if staging.beside_logits:
            peak = max(peak, _logits(k, shape) + k.partial_logits * u)
    if staging.output and shape.n_outputs >= OP_OFFLOAD_MIN_BATCH:
        peak = max(peak, staging.output + _logits(k, shape))
    return peak


def _partial_bytes(k: ComputeBuffers, shape: GraphShape, largest: int, attention: int) -> int:
    """Upper bound for layers left on the CPU: their caches are copied in beside their weights."""
    u, kv = shape.n_ubatch, max(shape.kv_staged_bytes, attention)
    if not shape.flash_attn:
        scores = k.scores_per_batch_and_context_token * shape.n_ctx_stream * u
        per_context = k.partial_without_flash_per_context_token * shape.n_kv
        return largest + k.partial_without_flash * u + shape.mask_bytes + scores + per_context + _PARTIAL_SLACK
    if shape.converted_kv:
        beside = min(k.partial_converted * u, k.partial_converted_staging * u + _PARTIAL_FRAGMENTS)
        activations = max(k.partial_converted * u, largest + beside)
        peak = kv + activations
        if shape.wide_cache:  # bf16: as large as its f16 copy
            peak = max(peak, 3 * kv // 2 + k.partial_converted * u)
        peak += k.partial_converted_per_context_token * shape.n_kv + _CONVERTED_SLACK
    else:
        peak = max(3 * kv // 2, kv + largest) + k.partial * u
        # A mask too large for the hole below the cache lies above it; so does a weight too large for the cache's place.
        if shape.mask_bytes > k.partial_mask_hole * u and largest > kv + k.partial_weight_hole * u:
            peak = max(peak, kv + largest + k.partial_beside_weight * u)
    return max(peak, kv + k.partial_dense * u) + shape.mask_bytes + _PARTIAL_SLACK


def host_bytes(k: ComputeBuffers, shape: GraphShape, *, pipeline: bool) -> int:
    """Pinned host compute buffer beside GPUs, where all is computed on them."""
    u = shape.n_ubatch
    # Tokens and positions take four bytes, the places to write K and V to eight; every tensor is padded. A transposed
    # V cache is written by one index per value (src/llama-kv-cache.cpp, build_input_v_idxs).
    widths = [4, 4, *[8] * k.host_indices]
    widths[-1] += 0 if shape.flash_attn else k.v_indices_without_flash
    inputs = sum(_on_host(width * u) for width in widths) + _on_host(4 * shape.n_outputs)
    inputs += shape.mask_bytes + _rotation(k, shape)
    if pipeline:
        return k.host_pipeline * u + PIPELINE_COPIES * (k.host_pipeline_copy * u + inputs)
    return k.host * u + inputs


def host_work_bytes(k: ComputeBuffers, shape: GraphShape, *, layers: bool, output: bool, op_offload: bool) -> int:
    """Upper bound for what is computed where its weights are, in main memory: what is too short to copy them for.

    Args:
        layers: whole layers are in main memory, not only experts.
        output: the output layer is too.
        op_offload: weights are copied to a GPU for batches long enough.
        k: the model's coefficients.
        shape: the graph.
    """
    u, o = shape.n_ubatch, shape.n_outputs
    peak = 0
    if not (op_offload and shape.is_offloadable):
        peak = cpu_bytes(k, shape) if layers else k.cpu_layer * u + shape.mask_bytes
    if o < OP_OFFLOAD_MIN_BATCH:
        peak = max(peak, k.cpu_layer * o + k.cpu_logits * u)
        if output:
            peak = max(peak, k.cpu_logits_per_output * o + k.cpu_logits * u)
    return peak


def _on_host(n_bytes: int) -> int:
    return -(-n_bytes // _HOST_STEP) * _HOST_STEP


def cpu_bytes(k: ComputeBuffers, shape: GraphShape) -> int:
    """Compute buffer of an engine without GPUs."""
    u = shape.n_ubatch
    if shape.expanded_bytes:
        return max(shape.expanded_bytes, k.logits_row * shape.n_outputs + k.cpu_logits * u)
    peak = k.cpu_layer * u if shape.flash_attn else _without_flash(k, shape, k.cpu_layer_without_flash)
    peak += shape.mask_bytes + _HOST_STEP
    return max(peak, k.cpu_logits_per_output * shape.n_outputs + k.cpu_logits * u)


def ik_expanded_bytes(k: ComputeBuffers, n_ctx: int, n_ubatch: int) -> int:
    """Compute buffer of ik_llama.cpp where it expands the latent cache of a layer to all heads; 0 where it has none."""
    if not k.ik_expanded_per_context_token:
        return 0
    mask = 4 * n_ctx * n_ubatch
    return n_ctx * k.ik_expanded_per_context_token + mask + n_ubatch * k.ik_expanded_per_batch_token + k.ik_expanded
