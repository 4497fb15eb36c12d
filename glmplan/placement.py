"""The knobs of one llama.cpp launch, under the names of the field, all pinned."""

from enum import StrEnum
from typing import Final

from glmplan.engine import EngineKind
from glmplan.noun import noun

# glibc 2.35 and newer ask for 2 MiB pages by it (GNU C library manual, "Memory Allocation Tunables").
HUGE_PAGES: Final = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


class FlashAttention(StrEnum):
    """Fused attention; a quantised KV cache needs it."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class LoadMode(StrEnum):
    """How weights get into memory (llama-server `--load-mode`)."""

    NONE = "none"
    MMAP = "mmap"
    MLOCK = "mlock"
    MMAP_MLOCK = "mmap+mlock"


class NumaMode(StrEnum):
    """How threads and weights spread over several NUMA nodes (llama-server `--numa`)."""

    DISTRIBUTE = "distribute"
    ISOLATE = "isolate"


@noun
class TensorOverride:
    """Tensors whose name matches `pattern` (regex search) live in `buffer` (`CPU`)."""

    pattern: str
    buffer: str = "CPU"


@noun
class Placement:
    """One configuration.

    `n_gpu_layers` counts the output layer: all of a 47-block file is 48. `n_cpu_moe` and `override_tensor`
    are two spellings of expert offload. `n_outputs` is the rows of logits reserved (llama-server: one per
    slot). `kv_unified`: all slots share one context of `n_ctx` tokens. `numa` None leaves threads to the system.
    `huge_pages`: buffers that the engine allocates are asked for in pages of 2 MiB (Linux, `HUGE_PAGES`).
    """

    engine: EngineKind
    n_ctx: int
    n_gpu_layers: int
    n_cpu_moe: int
    n_batch: int
    n_ubatch: int
    cache_type_k: str
    cache_type_v: str
    flash_attn: FlashAttention
    n_threads: int
    n_threads_batch: int
    use_mmap: bool
    use_mlock: bool
    engine_build: str | None = None
    tensor_split: tuple[float, ...] = ()
    override_tensor: tuple[TensorOverride, ...] = ()
    n_parallel: int = 1
    kv_unified: bool = True
    n_outputs: int = 1
    repack: bool = True
    op_offload: bool = True
    load_mtp: bool = False
    cache_ram_bytes: int = 0
    numa: NumaMode | None = None
    huge_pages: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """What the engine's environment says of the plan, beside its command line."""
        return dict([HUGE_PAGES]) if self.huge_pages else {}

    @property
    def load_mode(self) -> LoadMode:
        """The `--load-mode` value of the two booleans."""
        if self.use_mmap:
            return LoadMode.MMAP_MLOCK if self.use_mlock else LoadMode.MMAP
        return LoadMode.MLOCK if self.use_mlock else LoadMode.NONE
