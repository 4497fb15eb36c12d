"""Configurations one knob away from a plan, each within its memory; what is left alone, and why; pure.

docs/tune.md tells the knobs. The order is that of what a knob is known to move, because time may end before the last.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan.engine import EngineKind
from glmplan.errors import InputError
from glmplan.ggml_types import cache_type, is_quantized
from glmplan.placement import FlashAttention, NumaMode, Placement
from glmplan.planner.batches import with_long_batches
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import host_expert_bytes, one_tensor_less
from glmplan.planner.variants import fits_while_loading

# From the coarsest to the finest; each step towards the front is one of quality, and not taken unasked.
CACHE_TYPES: Final = ("q4_0", "q8_0", "bf16", "f16")
_UBATCHES: Final = (64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A placement, the knobs that it turns, and that turn in words."""

    knobs: frozenset[str]
    turned: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class Untried:
    """A knob that is left alone, and why."""

    turned: str
    why: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine and the user allow.

    `pins` are knobs that stay; `cache_types` those types that the user allows beside the plan's own and finer ones.
    `engines`: what else is installed and takes plans of llama.cpp's knobs. `no_huge_pages`: why this machine has none
    to ask for; None: it has. `n_tokens` is the prompt that will be measured: longer batches would never be full.
    """

    physical_cores: int
    usable_cores: int
    n_tokens: int
    numa_nodes: int = 1
    lockable_bytes: int | None = 0
    no_huge_pages: str | None = "only Linux gives them when asked"
    pins: frozenset[str] = frozenset()
    cache_types: frozenset[str] = frozenset()
    engines: frozenset[EngineKind] = frozenset()


def neighbours(
    placement: Placement, memory: MemoryModel, around: Surroundings
) -> tuple[list[Neighbour], list[Untried]]:
    """What is worth measuring beside `placement`, and what is not tried."""
    found: list[Neighbour] = []
    untried: list[Untried] = []
    seen = {placement}
    for knob, make in _KNOBS:
        if knob in around.pins:
            untried.append(Untried(knob, "pinned"))
            continue
        for turned, changed in make(placement, memory, around):
            why = changed if isinstance(changed, str) else _refusal(placement, changed, memory)
            if why is not None:
                untried.append(Untried(turned, why))
            elif isinstance(changed, Placement) and changed not in seen:
                seen.add(changed)
                found.append(Neighbour(frozenset({knob}) | _TURNED_ALONG.get(knob, frozenset()), turned, changed))
    return found, untried


def combined(base: Placement, parts: Sequence[Neighbour], memory: MemoryModel) -> Neighbour | None:
    """All knobs of `parts` turned at once; None when that does not fit."""
    changes = {
        name: getattr(part.placement, name)
        for part in parts
        for name in Placement.__dataclass_fields__
        if getattr(part.placement, name) != getattr(base, name)
    }
    placement = replace(base, **changes)
    if any(part.placement == placement for part in parts):
        return None  # one of them turns what the others do
    if _refusal(base, placement, memory) is not None:
        return None
    knobs = frozenset[str]().union(*(part.knobs for part in parts))
    return Neighbour(knobs, ", ".join(part.turned for part in parts), placement)


def _refusal(base: Placement, placement: Placement, memory: MemoryModel) -> str | None:
    """Why a placement cannot be had: the engine refuses it, or a device has too little memory."""
    try:
        rows = memory.estimate(placement).devices
    except InputError as error:
        return error.message
    had = {row.id: row.needed_bytes for row in memory.estimate(base).devices}
    short = [row for row in rows if not row.fits and row.needed_bytes > had[row.id]]
    if short:
        return f"{short[0].id} is {-short[0].margin_bytes} bytes short"
    if not fits_while_loading(memory, placement):
        return "while loading, the file and its repacked copy would not fit in main memory together"
    return None


# A knob's turns: words, and the placement or why there is none.
Turn = tuple[str, Placement | str]
Maker = Callable[[Placement, MemoryModel, Surroundings], Iterator[Turn]]


def _flash_attention(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    del memory, around
    wanted = FlashAttention.ON if placement.flash_attn is FlashAttention.OFF else FlashAttention.OFF
    turned = f"flash attention {wanted}"
    if wanted is FlashAttention.OFF and is_quantized(cache_type(placement.cache_type_k)):
        yield turned, f"a {placement.cache_type_k} cache needs it"
    else:
        yield turned, replace(placement, flash_attn=wanted)


def _repacking(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    del around
    turned = "weights as they are" if placement.repack else "weights repacked"
    if placement.engine is EngineKind.LLAMA_CPP_PYTHON:
        yield turned, f"{placement.engine} has no setting for it"
    elif _has_weights_on_host(placement, memory):
        yield turned, replace(placement, repack=not placement.repack)


def _load_mode(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    if not _has_weights_on_host(placement, memory):
        return
    turned = "weights read into memory of their own" if placement.use_mmap else "weights mapped from the file"
    yield turned, replace(placement, use_mmap=not placement.use_mmap)
    weights = memory.estimate(placement).devices[-1].weights_bytes
    if not placement.use_mlock and (around.lockable_bytes is None or around.lockable_bytes >= weights):
        yield "weights locked in memory", replace(placement, use_mlock=True)
    elif not placement.use_mlock:
        yield "weights locked in memory", f"the system lets a process lock {around.lockable_bytes} bytes (ulimit -l)"


def _huge_pages(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    """Buffers the engine allocates, not a mapped file: repacked weights, KV cache, compute."""
    if not _has_weights_on_host(placement, memory):
        return
    if placement.huge_pages:
        yield "buffers in pages of 4 KiB", replace(placement, huge_pages=False)
        return
    turned = "buffers in huge pages"
    if around.no_huge_pages is not None:
        yield turned, around.no_huge_pages
        return
    yield turned, replace(placement, huge_pages=True)
    if placement.use_mmap:
        yield f"{turned}, weights too", replace(placement, huge_pages=True, use_mmap=False)


def _ubatch(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    most = min(placement.n_ctx, around.n_tokens)
    offloads = bool(memory.spaces.gpus) and host_expert_bytes(memory, placement) > 0
    longer = {found.n_ubatch: found for found in with_long_batches(memory, placement)} if offloads else {}
    sizes = [size for size in _UBATCHES if size != placement.n_ubatch]
    for size in sorted(sizes, key=lambda each: abs(each.bit_length() - placement.n_ubatch.bit_length())):
        turned = f"n_ubatch {size}"
        if size > most and size > placement.n_ubatch:
            yield turned, f"longer than the prompt that is measured ({around.n_tokens} tokens)"
        elif size in longer:
            yield f"{turned}, experts by what room that leaves", longer[size]
        else:
            yield turned, _with_ubatch(placement, size)


def _with_ubatch(placement: Placement, size: int) -> Placement:
    n_batch = max(placement.n_batch, size)
    in_python = placement.engine is EngineKind.LLAMA_CPP_PYTHON
    return replace(placement, n_ubatch=size, n_batch=n_batch, n_outputs=n_batch if in_python else placement.n_outputs)


def _batch(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    del memory, around
    in_python = placement.engine is EngineKind.LLAMA_CPP_PYTHON
    if placement.n_batch > placement.n_ubatch:
        outputs = placement.n_ubatch if in_python else placement.n_outputs
        yield f"n_batch {placement.n_ubatch}", replace(placement, n_batch=placement.n_ubatch, n_outputs=outputs)


def _threads(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    del memory
    physical, usable = around.physical_cores, around.usable_cores
    counts = (physical - 1, physical, usable, -(-physical * 3 // 4), -(-physical // 2))
    for count in dict.fromkeys(count for count in counts if 1 <= count <= usable):
        if count != placement.n_threads:
            yield f"{count} threads to decode", replace(placement, n_threads=count)
        if count != placement.n_threads_batch and placement.engine is not EngineKind.LLAMA_CPP_PYTHON:
            yield f"{count} threads for prompts", replace(placement, n_threads_batch=count)


def _cache(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    own = placement.cache_type_k
    for name in CACHE_TYPES:
        if name == own:
            continue
        turned = f"{name} KV cache"
        finer = own in CACHE_TYPES and CACHE_TYPES.index(name) > CACHE_TYPES.index(own)
        if not finer and name not in around.cache_types:
            yield turned, "it costs quality: --allow-cache-type allows it"
        else:
            flash = FlashAttention.ON if is_quantized(cache_type(name)) else placement.flash_attn
            changed = replace(placement, cache_type_k=name, cache_type_v=name, flash_attn=flash)
            yield turned, changed
            # Fused attention on a CPU has no fast path for it (ggml-cpu/ops.cpp, flash_attn_ext_tiled: f16, f32).
            if name == "bf16" and flash is not FlashAttention.OFF and not memory.spaces.gpus:
                yield f"{turned}, flash attention off", replace(changed, flash_attn=FlashAttention.OFF)


def _experts(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    """Fewer experts on the GPUs for a longer batch is the ubatch's turn; this one is what little can be had beside."""
    del around
    if not memory.spaces.gpus or not host_expert_bytes(memory, placement):
        return
    for found in one_tensor_less(memory, placement):
        yield "one expert tensor more in main memory", found
        break
    words = "host operations of long prompts kept on the CPU" if placement.op_offload else "long prompts on the GPU"
    yield words, replace(placement, op_offload=not placement.op_offload)


def _split(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    del memory, around
    split = placement.tensor_split
    for giver in range(len(split)):
        taker = (giver + 1) % len(split)
        if split[giver] >= 1:
            changed = list(split)
            changed[giver] -= 1
            changed[taker] += 1
            yield f"one layer from gpu{giver} to gpu{taker}", replace(placement, tensor_split=tuple(changed))


def _engine(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    """ik_llama.cpp, on processors: its own kernels, fused attention and interleaved weights go together."""
    if EngineKind.IK_LLAMA not in around.engines or placement.engine is EngineKind.IK_LLAMA or memory.spaces.gpus:
        return
    turned = f"by {EngineKind.IK_LLAMA}"
    if placement.n_parallel > 1 or placement.load_mtp:
        yield turned, "it is not handed several slots or multi-token prediction"
        return
    handed = replace(placement, engine=EngineKind.IK_LLAMA, engine_build=None, flash_attn=FlashAttention.ON)
    yield f"{turned}, weights repacked", replace(handed, repack=True, use_mmap=False)
    yield turned, replace(handed, repack=False)


def _numa(placement: Placement, memory: MemoryModel, around: Surroundings) -> Iterator[Turn]:
    if around.numa_nodes < 2 or not _has_weights_on_host(placement, memory):
        return
    for mode in NumaMode:
        if mode is not placement.numa:
            yield f"NUMA {mode}", replace(placement, numa=mode)


def _has_weights_on_host(placement: Placement, memory: MemoryModel) -> bool:
    """Whether weights in main memory are computed with, not only looked up."""
    return not memory.spaces.gpus or host_expert_bytes(memory, placement) > 0


# What an engine is measured with: turned back alone, it would be another measurement.
_TURNED_ALONG: Final = {"engine": frozenset({"flash_attn", "repack", "load_mode", "cache_type"})}
_KNOBS: Final[tuple[tuple[str, Maker], ...]] = (
    ("engine", _engine),
    ("flash_attn", _flash_attention),
    ("repack", _repacking),
    ("load_mode", _load_mode),
    ("huge_pages", _huge_pages),
    ("n_ubatch", _ubatch),
    ("n_threads", _threads),
    ("experts", _experts),
    ("cache_type", _cache),
    ("tensor_split", _split),
    ("numa", _numa),
    ("n_batch", _batch),
)
KNOBS: Final = tuple(name for name, _ in _KNOBS)
