"""Placements worth trying: contexts, cache types and batch sizes, all other knobs pinned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from glmplan.engine import EngineKind
from glmplan.ggml_types import GgmlType
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import least

# Contexts a balanced search looks at; n_ctx_train is added.
CONTEXT_LADDER: Final = (4096, 8192, 16384, 24576, 32768, 49152, 65536, 98304, 131072, 163840)
_CONTEXT_STEP: Final = 256
# llama.cpp's own default batches, tokens (common/common.h).
BATCH: Final = 2048
UBATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Demand:
    """What of a request and its machine decides which placements fit, before anybody asks how fast they are.

    `long_batches`: experts may leave a GPU for longer prompt batches. `wanted_ctx`: contexts shorter than this lose to
    any of this length, so that where one fits the shorter steps of the ladder are not looked at.
    """

    engine: EngineKind
    n_threads: int
    n_threads_batch: int
    n_parallel: int = 1
    n_ctx: int | None = None
    cache_type: str | None = None
    long_batches: bool = False
    wanted_ctx: int = 0


def base_placement(
    memory: MemoryModel,
    *,
    engine: EngineKind,
    n_ctx: int,
    cache: str,
    n_parallel: int,
    n_threads: int,
    n_threads_batch: int | None = None,
) -> Placement:
    """Everything on the GPUs there are (all on the CPU without one), all knobs pinned.

    On a CPU, repacked weights cost 39 % of prefill and double the resident set while loading for 7 % of decode
    (docs/how-it-chooses.md), so they are off; flash attention is on, because it speeds decode at depth.
    llama-cpp-python has no setting for repacking, and keeps logits for a whole batch: its batches are short.
    ik_llama.cpp's kernels are made for repacked weights, which gain both speeds there (docs/accuracy.md).
    """
    has_gpu = bool(memory.spaces.gpus)
    in_python, by_ik = engine is EngineKind.LLAMA_CPP_PYTHON, engine is EngineKind.IK_LLAMA
    n_batch = UBATCH if in_python else BATCH
    return Placement(
        engine=engine,
        n_ctx=n_ctx,
        n_gpu_layers=memory.layers.n_all + 1 if has_gpu else 0,
        n_cpu_moe=0,
        n_batch=n_batch,
        n_ubatch=UBATCH,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attn=FlashAttention.ON,
        n_threads=n_threads,
        n_threads_batch=n_threads_batch or n_threads,
        use_mmap=not by_ik,
        use_mlock=False,
        n_parallel=n_parallel,
        kv_unified=True,
        n_outputs=n_batch if in_python else n_parallel,
        repack=has_gpu or in_python or by_ik,
    )


def base_of(memory: MemoryModel, demand: Demand, cache: str, n_ctx: int) -> Placement:
    """`base_placement` with what is demanded."""
    return base_placement(
        memory,
        engine=demand.engine,
        n_ctx=n_ctx,
        cache=cache,
        n_parallel=demand.n_parallel,
        n_threads=demand.n_threads,
        n_threads_batch=demand.n_threads_batch,
    )


def undecided(memory: MemoryModel, placement: Placement) -> Placement:
    """`placement` as it was before anything left the GPUs and before free memory bought a longer batch."""
    return replace(
        placement,
        n_gpu_layers=memory.layers.n_all + 1 if memory.spaces.gpus else 0,
        n_cpu_moe=0,
        override_tensor=(),
        n_batch=min(placement.n_batch, BATCH),
        n_ubatch=min(placement.n_ubatch, UBATCH),
        tensor_split=(),
        use_mmap=True,
        cache_ram_bytes=0,
    )


def contexts(n_ctx_train: int, pinned: int | None) -> tuple[int, ...]:
    """Context lengths to try."""
    if pinned is not None:
        return (pinned,)
    return (*[n_ctx for n_ctx in CONTEXT_LADDER if n_ctx < n_ctx_train], n_ctx_train)


def largest_context(
    memory: MemoryModel, placement: Placement, n_ctx_train: int, fits: Callable[[MemoryModel, Placement], bool]
) -> Placement | None:
    """`placement` with the largest context, in steps of 256 tokens up to `n_ctx_train`, that still `fits`."""

    def at(step: int) -> Placement:
        return replace(placement, n_ctx=step * _CONTEXT_STEP)

    if not fits(memory, at(1)):
        return None
    too_long = least(2, n_ctx_train // _CONTEXT_STEP, lambda step: not fits(memory, at(step)))
    return at(too_long - 1 if too_long is not None else n_ctx_train // _CONTEXT_STEP)


def cache_types(pinned: str | None) -> Iterator[str]:
    """KV cache types to try, best first; smaller ones cost speed on every backend seen so far."""
    if pinned is not None:
        yield pinned
        return
    yield GgmlType.F16.name.lower()
    yield GgmlType.Q8_0.name.lower()
