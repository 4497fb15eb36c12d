"""What an engine takes beside llama.cpp's own count; engineering margins, each with its evidence.

These are `assumed` numbers: the first run on a machine measures them and the ledger is compared line by line.
"""

from typing import Final

from glmplan.placement import Placement
from glmplan.planner.buffers import GraphShape
from glmplan.planner.spaces import GpuKind, GpuSpace
from glmplan.units import MIB

# CUDA context and modules: 451 and 456 MiB "unaccounted" on an RTX 4090 (llama.cpp PR 15860).
_CUDA_CONTEXT: Final = 450 * MIB
# cuBLAS workspace (32 MiB from compute capability 9.0 on, 4 before: ggml-cuda/common.cuh:1537-1543) and small change.
_CUDA_WORKSPACE: Final = 64 * MIB
# The VMM pool holds temporaries of MMQ, MoE and attention; it never shrinks (ggml-cuda.cu:528-677).
_CUDA_POOL_PER_512_TOKENS: Final = 100 * MIB
# Metal reserves scratch for every flash attention op (ggml-metal-ops.cpp:3064-3211), and a little for pipelines.
_METAL_SCRATCH: Final = 45 * MIB
_METAL_SCRATCH_PER_CONTEXT_TOKEN: Final = 1152
# Program, vocabulary and Python or C++ runtime beside the buffers.
_PROCESS: Final = 256 * MIB


def gpu_bytes(gpu: GpuSpace, shape: GraphShape) -> int:
    """Context, workspace and pool on one GPU."""
    if gpu.kind is GpuKind.REMOTE_CPU:
        return _PROCESS
    if gpu.kind is GpuKind.METAL:
        return _METAL_SCRATCH + _METAL_SCRATCH_PER_CONTEXT_TOKEN * shape.n_kv
    return _CUDA_CONTEXT + _CUDA_WORKSPACE + _CUDA_POOL_PER_512_TOKENS * shape.n_ubatch // 512


def host_bytes(placement: Placement, n_vocab: int) -> int:
    """Process, prompt cache and the logits buffer (f32 rows, outside llama.cpp's breakdown)."""
    rows = max(placement.n_outputs, placement.n_parallel)
    return _PROCESS + placement.cache_ram_bytes + 4 * n_vocab * rows
