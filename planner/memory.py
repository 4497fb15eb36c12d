"""The memory model: every buffer of a placement on every device, in closed form.

`MemoryModel.buffers` is llama.cpp's own count (weights, KV cache, compute; compared with the engine in
tests/contract/test_oracle.py); `MemoryModel.estimate` adds what llama.cpp does not count and the verdict.
"""

from dataclasses import dataclass
from typing import Final

from glmplan.engine import EngineKind
from glmplan.errors import InputError, UnsupportedModel
from glmplan.estimate import Basis, DeviceMemory, MemoryEstimate
from glmplan.ggml_types import GgmlType, cache_type, is_quantized
from glmplan.model import MlaAttention, ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.planner import buffers, overheads
from glmplan.planner.buffers import DeviceRole, GraphShape, Staging
from glmplan.planner.kv_cache import fits_blocks, layer_bytes, padded_context
from glmplan.planner.layers import CUDA_RULES, PLAIN_RULES, OffloadTable, device_ranges, layer_table
from glmplan.planner.spaces import GpuKind, Spaces

_RULES: Final = {GpuKind.CUDA: CUDA_RULES, GpuKind.METAL: PLAIN_RULES, GpuKind.REMOTE_CPU: PLAIN_RULES}

_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Buffers:
    """llama.cpp's buffers on one device, in bytes."""

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int


class MemoryModel:
    """One model file on one set of devices; cheap to ask many times."""

    def __init__(self, model: ModelProfile, spaces: Spaces) -> None:
        """Prepare prefix sums for `model`.

        Raises:
            UnsupportedModel: no compute-buffer coefficients are known for it.
        """
        if model.compute is None:
            message = f"no memory model for {model.name} (architecture {model.architecture})"
            raise UnsupportedModel(message, hint="ask the engine itself: glmplan estimate --exact")
        self.model = model
        self.spaces = spaces
        self.layers = layer_table(model, _RULES[spaces.gpus[0].kind] if spaces.gpus else PLAIN_RULES)
        self._compute = model.compute
        # A CPU's flash attention reads any cache as it is.
        self._converts_kv = any(gpu.kind is not GpuKind.REMOTE_CPU for gpu in spaces.gpus)
        self._shares = tuple(float(gpu.free_bytes) for gpu in spaces.gpus)
        self._remembered: dict[Placement, MemoryEstimate] = {}

    def ranges(self, placement: Placement) -> tuple[tuple[int, int], ...]:
        """Layers [first, end) of each GPU; the output layer counts as one."""
        shares = placement.tensor_split or self._shares
        return device_ranges(self.layers.n_all, placement.n_gpu_layers, shares)

    def buffers(self, placement: Placement) -> tuple[tuple[Buffers, ...], Buffers]:
        """Buffers of each GPU, and of the host.

        Raises:
            InputError: a combination that llama.cpp refuses.
        """
        return self._buffers(placement, self._shape_of(placement))

    def _shape_of(self, placement: Placement) -> GraphShape:
        kv_type = cache_type(placement.cache_type_k)
        _refuse(self.model, placement, kv_type)
        return self.graph_shape(placement, kv_type)

    def _buffers(self, placement: Placement, shape: GraphShape) -> tuple[tuple[Buffers, ...], Buffers]:
        kv_type = cache_type(placement.cache_type_k)
        table = self.layers.offload(placement.n_cpu_moe, placement.override_tensor, load_mtp=placement.load_mtp)
        if not self.spaces.gpus:
            return (), self._host_only(table, shape, kv_type)
        ranges = self.ranges(placement)
        first = ranges[0][0]
        n_main = self.layers.n_main
        kv_gpu = layer_bytes(self.model.attention, kv_type, shape.n_kv, self.layers.rules)
        kv_host = layer_bytes(self.model.attention, kv_type, shape.n_kv)
        pipeline = self._is_pipelined(placement, ranges)
        devices = tuple(
            Buffers(
                table.gpu[end] - table.gpu[start],
                max(0, min(end, n_main) - start) * kv_gpu,
                self._device_compute(index, ranges, table, shape, placement, pipeline=pipeline),
            )
            for index, (start, end) in enumerate(ranges)
        )
        overridden = table.host_overridden[-1] - table.host_overridden[first]
        host = Buffers(
            self.layers.input_bytes + table.host_full[first] + overridden,
            min(first, n_main) * kv_host,
            self._host_compute(first, overridden, shape, placement, pipeline=pipeline),
        )
        return devices, host

    def draft_bytes(self, placement: Placement) -> tuple[tuple[int, ...], int]:
        """What the context that drafts takes of each GPU and of the host, at most, beside the block's weights.

        Its cache has one layer, where the block is. Its graph is that layer and the output: its compute buffers are
        those of a main context with one layer there, or less (tests/contract/test_oracle.py).
        """
        shape = self._shape_of(placement)
        devices, host = self._buffers(placement, shape)
        kv_type, ranges = cache_type(placement.cache_type_k), self.ranges(placement) if devices else ()
        role = DeviceRole(first=True, n_layers=1, has_output=True, without_experts=False)
        pipelined = bool(devices) and self._is_pipelined(placement, ranges)
        formula = buffers.pipeline_device_bytes if pipelined else buffers.device_bytes
        taken = [0] * len(devices)
        for index, (start, end) in enumerate(ranges):
            if start < self.layers.n_all <= end:
                compute = max(devices[index].compute_bytes, formula(self._compute, shape, role))
                taken[index] = layer_bytes(self.model.attention, kv_type, shape.n_kv, self.layers.rules) + compute
                return tuple(taken), host.compute_bytes
        return tuple(taken), layer_bytes(self.model.attention, kv_type, shape.n_kv) + host.compute_bytes

    def notes(self, placement: Placement) -> tuple[str, ...]:
        """Which of these numbers are bounds only."""
        shape = self.graph_shape(placement, cache_type(placement.cache_type_k))
        table = self.layers.offload(placement.n_cpu_moe, placement.override_tensor, load_mtp=placement.load_mtp)
        first = self.ranges(placement)[0][0] if self.spaces.gpus else 0
        if not (first or (self.spaces.gpus and table.host_overridden[-1])) or shape.is_offloadable:
            return ()
        n_tokens = shape.n_ubatch // shape.n_stream
        least = buffers.OP_OFFLOAD_MIN_BATCH
        bound = f"host: compute_bytes is an upper bound: batches have {n_tokens} tokens per stream, fewer than {least}"
        return (f"{bound}, and are computed beside their weights; --exact asks the engine",)

    def _host_compute(
        self, first: int, overridden: int, shape: GraphShape, placement: Placement, *, pipeline: bool
    ) -> int:
        peak = buffers.host_bytes(self._compute, shape, pipeline=pipeline)
        if not first and not overridden:
            return peak
        on_host = buffers.host_work_bytes(
            self._compute,
            shape,
            layers=first > 0,
            output=first > self.layers.n_all,
            op_offload=placement.op_offload,
        )
        return max(peak, on_host)

    @staticmethod
    def expert_bytes_per_layer(model: ModelProfile) -> float:
        """Mean bytes of the routed experts of a layer that has some."""
        layers = model.n_layer - model.n_layer_dense_lead
        return sum(tensor.n_bytes for tensor in model.tensors if "_exps" in tensor.name) / layers

    def graph_shape(self, placement: Placement, kv_type: GgmlType) -> GraphShape:
        """The sizes llama.cpp reserves its graphs for (src/llama-context.cpp:245-306)."""
        n_stream_ctx, n_stream = padded_context(placement.n_ctx, placement.n_parallel, kv_unified=placement.kv_unified)
        n_ubatch = min(placement.n_ubatch, placement.n_batch, placement.n_ctx)
        by_ik = placement.engine is EngineKind.IK_LLAMA
        # One output at most per token asked for; the batch itself is a multiple of the slots. ik_llama.cpp reserves
        # logits for every token of a ubatch.
        n_outputs = n_ubatch if by_ik else min(n_ubatch, placement.n_outputs)
        n_ubatch = -(-n_ubatch // placement.n_parallel) * placement.n_parallel
        flash = placement.flash_attn is not FlashAttention.OFF
        staged = layer_bytes(self.model.attention, kv_type, n_stream_ctx * n_stream)
        if isinstance(self.model.attention, MlaAttention):
            staged *= 2
        return GraphShape(
            n_ubatch=n_ubatch,
            n_ctx_stream=n_stream_ctx,
            n_stream=n_stream,
            n_outputs=n_outputs,
            flash_attn=flash,
            converted_kv=kv_type is not GgmlType.F16 and self._converts_kv,
            kv_staged_bytes=staged,
            wide_cache=not is_quantized(kv_type),
            expanded_bytes=buffers.ik_expanded_bytes(self._compute, n_stream_ctx, n_ubatch) if by_ik else 0,
        )

    def _host_only(self, table: OffloadTable, shape: GraphShape, kv_type: GgmlType) -> Buffers:
        kv_layer = layer_bytes(self.model.attention, kv_type, shape.n_kv)
        weights = self.layers.input_bytes + table.host_full[-1]
        return Buffers(weights, self.layers.n_main * kv_layer, buffers.cpu_bytes(self._compute, shape))

    def _is_pipelined(self, placement: Placement, ranges: tuple[tuple[int, int], ...]) -> bool:
        """Copies of inputs: several GPUs, everything offloaded, no override of any kind."""
        overridden = placement.n_cpu_moe > 0 or placement.override_tensor
        return len(ranges) > 1 and ranges[0][0] == 0 and not overridden

    def _device_compute(
        self,
        index: int,
        ranges: tuple[tuple[int, int], ...],
        table: OffloadTable,
        shape: GraphShape,
        placement: Placement,
        *,
        pipeline: bool,
    ) -> int:
        start, end = ranges[index]
        n_all = self.layers.n_all
        role = DeviceRole(
            first=start == 0 and end > start,
            n_layers=max(0, min(end, self.layers.n_main) - start),
            has_output=start <= n_all < end,
            without_experts=min(table.largest_host[start : min(end, self.layers.n_main)], default=0) > 0,
        )
        if pipeline:
            return buffers.pipeline_device_bytes(self._compute, shape, role)
        peak = buffers.device_bytes(self._compute, shape, role)
        if index == 0 and placement.op_offload and shape.n_ubatch >= buffers.OP_OFFLOAD_MIN_BATCH:
            peak = max(peak, buffers.staging_bytes(self._compute, shape, self._staging(ranges, table)))
        return peak

    def _staging(self, ranges: tuple[tuple[int, int], ...], table: OffloadTable) -> Staging:
        first, own_end = ranges[0]
        return Staging(
            own=max(table.largest_host[first:own_end], default=0),
            foreign=max(table.largest_host_pair[own_end:], default=0),
            cpu_layers=max(table.largest_tensor[:first], default=0) if first else None,
            output=table.largest_tensor[self.layers.n_all] if first > self.layers.n_all else 0,
            beside_logits=own_end > self.layers.n_all,
            attention=max(self.layers.largest_attention[:first], default=0),
            foreign_single=max(table.largest_host[own_end:], default=0),
        )

    def remembered(self, placement: Placement) -> MemoryEstimate:
        """`estimate` for a search, which asks for the same placement several times."""
        found = self._remembered.get(placement)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[placement] = self.estimate(placement)
        return found

    def estimate(self, placement: Placement) -> MemoryEstimate:
        """Buffers, overheads and the verdict per device."""
        shape = self._shape_of(placement)
        devices, host = self._buffers(placement, shape)
        drafting = placement.load_mtp and self.model.n_nextn_layers > 0
        draft_gpus, draft_host = self.draft_bytes(placement) if drafting else ((0,) * len(devices), 0)
        weights = sum(part.weights_bytes for part in (*devices, host))
        rows = [
            DeviceMemory(
                id=gpu.id,
                usable_bytes=gpu.usable_bytes,
                weights_bytes=part.weights_bytes,
                kv_cache_bytes=part.kv_cache_bytes,
                compute_bytes=part.compute_bytes,
                overhead_bytes=overheads.gpu_bytes(gpu, shape) + self._misplaced_bytes(part, weights) + draft
                if _is_used(part)
                else 0,
            )
            for gpu, part, draft in zip(self.spaces.gpus, devices, draft_gpus, strict=True)
        ]
        usable = self.spaces.host.usable_bytes
        # One memory for both: what the GPU part takes is gone for the host part.
        usable -= sum(row.needed_bytes for row, gpu in zip(rows, self.spaces.gpus, strict=True) if gpu.unified)
        rows.append(
            DeviceMemory(
                id="host",
                usable_bytes=usable,
                weights_bytes=host.weights_bytes,
                kv_cache_bytes=host.kv_cache_bytes,
                compute_bytes=host.compute_bytes,
                overhead_bytes=overheads.host_bytes(placement, self.model.n_vocab) + draft_host,
            )
        )
        basis = Basis.ASSUMED if self.model.assumed_bytes else Basis.ROOFLINE
        return MemoryEstimate(devices=tuple(rows), basis=basis)

    def _misplaced_bytes(self, part: Buffers, weights: int) -> int:
        """What a device may hold beyond its part: bytes of which only the sum is known may all lie in its tensors."""
        return self.model.assumed_bytes * (weights - part.weights_bytes) // weights


def _is_used(part: Buffers) -> bool:
    return part.weights_bytes > 0


def _refuse(model: ModelProfile, placement: Placement, kv_type: GgmlType) -> None:
    """What llama.cpp itself refuses (src/llama-context.cpp:3835-3871)."""
    if placement.cache_type_k != placement.cache_type_v and model.attention.kind == "mla":
        message = f"K cache {placement.cache_type_k} and V cache {placement.cache_type_v}: this model has one cache"
        raise InputError(message, hint="use the same type for both")
    if is_quantized(kv_type) and placement.flash_attn is FlashAttention.OFF:
        message = f"a {placement.cache_type_k} KV cache needs flash attention"
        raise InputError(message, hint="--flash-attn on, or --cache-type f16")
    if not fits_blocks(model.attention, kv_type):
        message = f"rows of this model's cache are not whole blocks of {placement.cache_type_k}"
        raise InputError(message, hint="--cache-type q8_0 or f16")
