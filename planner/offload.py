"""What leaves the GPUs when not everything fits: the fewest expert bytes, by each card's own gap; then whole layers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from glmplan.engine import EngineKind
from glmplan.estimate import DeviceMemory, MemoryEstimate
from glmplan.placement import Placement, TensorOverride
from glmplan.planner.experts import Experts, choose, overrides
from glmplan.planner.memory import MemoryModel
from glmplan.units import MIB

# Matches no tensor, but any override turns llama.cpp's pipeline copies of inputs off (src/llama-context.cpp:326-345).
NO_PIPELINE: Final = TensorOverride(pattern="no_tensor_has_this_name")
# The closed form of a GPU's compute buffer was 18 KiB low at worst in the plans of docs/vs-fit.md.
_MODEL_ERROR_BYTES: Final = MIB
_TRIES: Final = 5
# How many layers may leave the GPUs for the experts of one.
_LAYERS_FOR_EXPERTS: Final = 6
# Parts of the experts that ought to fit, tried in order: what each card computes with is known only afterwards.
_SHARES: Final = (1.0, 0.95, 0.85, 0.5, 0.0)


def best_offload(memory: MemoryModel, placement: Placement) -> Placement | None:
    """`placement` with as few bytes off the GPUs as fit, or None when nothing fits."""
    whole = on_gpus(memory, placement)
    if whole is not None or not memory.spaces.gpus:
        return whole
    return partly_offloaded(memory, placement)


def partly_offloaded(memory: MemoryModel, placement: Placement) -> Placement | None:
    """`best_offload` of what is known not to fit on the GPUs whole."""
    if not memory.spaces.gpus:
        return None
    if placement.engine is EngineKind.LLAMA_CPP_PYTHON:  # which cannot leave experts alone on the CPU
        return _fewer_layers(memory, placement)
    return hybrid(memory, placement) or _fewer_layers(memory, placement)


def fits_somehow(memory: MemoryModel, placement: Placement) -> bool:
    """Whether `best_offload` finds anything; cheaper, because nothing is chosen."""
    if on_gpus(memory, placement) is not None:
        return True
    if not memory.spaces.gpus:
        return False
    if placement.engine is EngineKind.LLAMA_CPP_PYTHON:
        return _fewer_layers(memory, placement) is not None
    all_host = _all_host(memory, placement)
    if all_host is None:
        return _fewer_layers(memory, placement) is not None
    # Where main memory cannot take all experts, the GPUs have to keep enough of them.
    return fits(memory, all_host) or (_may_hold(memory, all_host) and hybrid(memory, placement) is not None)


def _may_hold(memory: MemoryModel, placement: Placement) -> bool:
    """Whether all devices together have room, as if experts were sand."""
    rows = memory.remembered(placement).devices
    return not any(gpu.unified for gpu in memory.spaces.gpus) and sum(row.margin_bytes for row in rows) >= 0


def fits(memory: MemoryModel, placement: Placement) -> bool:
    """Whether every device holds its part, the GPUs with what the closed form of compute buffers may be low."""
    estimate = memory.remembered(placement)
    return estimate.fits and min(_margins_of(estimate), default=0) >= 0


def _gpus_hold(memory: MemoryModel, placement: Placement) -> bool:
    return min(_margins(memory, placement), default=0) >= 0


def _margins(memory: MemoryModel, placement: Placement) -> list[int]:
    return _margins_of(memory.remembered(placement))


def _margins_of(estimate: MemoryEstimate) -> list[int]:
    return [row.margin_bytes - _MODEL_ERROR_BYTES for row in estimate.devices[:-1]]


def on_gpus(memory: MemoryModel, placement: Placement) -> Placement | None:
    """All layers on the GPUs (in main memory without one): with pipeline copies where they fit, else without."""
    n_gpus = len(memory.spaces.gpus)
    if n_gpus < 2:
        return placement if fits(memory, placement) else None
    tried = [placement, replace(placement, override_tensor=(NO_PIPELINE,))]
    if placement.engine is EngineKind.LLAMA_CPP_PYTHON:
        tried.pop()
    for candidate in tried:
        split = split_layers(memory, candidate)
        if fits(memory, split):
            return split
    return None


def hybrid(memory: MemoryModel, placement: Placement) -> Placement | None:
    """All layers on the GPUs, the experts that do not fit in main memory."""
    all_host = _all_host(memory, placement)
    if all_host is None:
        return None
    if len(memory.spaces.gpus) < 2:
        return keep_experts(memory, all_host)
    room = sum(max(0, row.margin_bytes) for row in memory.remembered(all_host).devices[:-1])
    share = min(1.0, room / max(1, _expert_bytes(memory, 0, memory.layers.n_main)))
    for part in _SHARES:
        kept = keep_experts(memory, split_layers(memory, all_host, kept_share=share * part))
        if kept is not None:
            return kept
    return None


def _all_host(memory: MemoryModel, placement: Placement) -> Placement | None:
    """All experts in main memory (which may be too small for them), or None where even the rest is too much."""
    found = split_layers(memory, _with_experts_on_host(memory, placement))
    return found if _gpus_hold(memory, found) else None


def _with_experts_on_host(memory: MemoryModel, placement: Placement) -> Placement:
    return replace(placement, n_cpu_moe=memory.layers.n_main, override_tensor=(), use_mmap=False)


def keep_experts(memory: MemoryModel, placement: Placement) -> Placement | None:
    """`placement` with the layers where they are and as many experts on each GPU as its gap holds.

    None when the GPUs do not hold it with all experts in main memory, or main memory does not hold what is left to it.
    """
    all_host = _with_experts_on_host(memory, placement)
    room = _margins(memory, all_host)
    if min(room, default=0) < 0:
        return None
    experts = experts_of(memory, placement)
    held = [memory.layers.expert_bytes_between(start, end) for start, end in memory.ranges(placement)]
    wanted = [max(0, n_bytes - margin) for n_bytes, margin in zip(held, room, strict=True)]
    best: Placement | None = None
    for _ in range(_TRIES):
        found = _leave(memory, all_host, experts, wanted)
        if found is None:
            break
        margins = _margins(memory, found)
        if min(margins) >= 0:
            best = _fewer(memory, best, found)
        moved = _moved(memory, found)
        following = [max(0, size - margin) for size, margin in zip(moved, margins, strict=True)]
        if following == wanted:
            break
        wanted = following
    found = best or all_host
    return found if fits(memory, found) else None


def one_tensor_less(memory: MemoryModel, placement: Placement | None) -> Iterator[Placement]:
    """`placement` with one more expert tensor in main memory, for each GPU that has one to give."""
    if placement is None:
        return
    experts = experts_of(memory, placement)
    moved = _moved(memory, placement)
    for index, part in enumerate(experts):
        smallest = min((n_bytes for layer in part.values() for _, n_bytes in layer), default=0)
        wanted = [size + smallest * (index == giver) for giver, size in enumerate(moved)]
        found = _leave(memory, _with_experts_on_host(memory, placement), experts, wanted) if smallest else None
        if found is not None and fits(memory, found):
            yield found


def _fewer(memory: MemoryModel, best: Placement | None, found: Placement) -> Placement:
    if best is None or host_expert_bytes(memory, found) < host_expert_bytes(memory, best):
        return found
    return best


def _leave(
    memory: MemoryModel, placement: Placement, experts: Sequence[Experts], wanted: Sequence[int]
) -> Placement | None:
    """At least `wanted` bytes of experts per GPU in main memory, those of layers off the GPUs anyway."""
    host = {
        layer: tuple(p for p, _ in memory.layers.expert_tensors(layer)) for layer in _layers_on_host(memory, placement)
    }
    for part, size in zip(experts, wanted, strict=True):
        chosen = choose(part, size)
        if chosen is None:
            return None
        host.update(chosen)
    every = {layer: tensors for part in experts for layer, tensors in part.items()}
    every.update({layer: memory.layers.expert_tensors(layer) for layer in _layers_on_host(memory, placement)})
    n_cpu_moe, patterns = overrides(host, every)
    if not patterns and not n_cpu_moe and len(experts) > 1:
        patterns = (NO_PIPELINE,)
    memory.layers.leave(host, n_cpu_moe, patterns, load_mtp=placement.load_mtp)
    return replace(placement, n_cpu_moe=n_cpu_moe, override_tensor=patterns)


def _layers_on_host(memory: MemoryModel, placement: Placement) -> list[int]:
    first = memory.ranges(placement)[0][0]
    return [layer for layer in range(min(first, memory.layers.n_main)) if memory.layers.expert_tensors(layer)]


def experts_of(memory: MemoryModel, placement: Placement) -> tuple[Experts, ...]:
    """Expert tensors of the layers each GPU holds."""
    return tuple(memory.layers.experts_between(start, end) for start, end in memory.ranges(placement))


def _moved(memory: MemoryModel, placement: Placement) -> list[int]:
    """Expert bytes of each GPU's layers that `placement` leaves in main memory."""
    table = memory.layers.offload(placement.n_cpu_moe, placement.override_tensor, load_mtp=placement.load_mtp)
    sums, n_main = table.host_overridden, memory.layers.n_main
    return [sums[max(start, min(end, n_main))] - sums[start] for start, end in memory.ranges(placement)]


def host_expert_bytes(memory: MemoryModel, placement: Placement) -> int:
    """Bytes of routed experts in main memory."""
    if not memory.spaces.gpus:
        return _expert_bytes(memory, 0, memory.layers.n_main)
    first = min(memory.ranges(placement)[0][0], memory.layers.n_main)
    return sum(_moved(memory, placement)) + _expert_bytes(memory, 0, first)


def _expert_bytes(memory: MemoryModel, start: int, end: int) -> int:
    return sum(memory.layers.expert_bytes(layer) for layer in range(start, end))


def _fewer_layers(memory: MemoryModel, placement: Placement) -> Placement | None:
    """Fewer layers on the GPUs, the experts of the others kept there as far as they fit.

    A few layers more leave than must, if that keeps the experts of one layer on a GPU: `--fit` does the same.
    """
    found = _least_layers(memory, placement)
    if found is None or placement.engine is EngineKind.LLAMA_CPP_PYTHON or not found.n_gpu_layers:
        return found if found is not None and fits(memory, found) else None
    every = _expert_bytes(memory, 0, memory.layers.n_main)
    one_layer = min(filter(None, (memory.layers.expert_bytes(i) for i in range(memory.layers.n_main))), default=0)
    for fewer in range(min(_LAYERS_FOR_EXPERTS, found.n_gpu_layers - 1) + 1):
        less = split_layers(memory, replace(found, n_gpu_layers=found.n_gpu_layers - fewer))
        if max(_margins(memory, less)) < one_layer:
            continue
        kept = keep_experts(memory, less)
        if kept is not None and every - host_expert_bytes(memory, kept) >= one_layer:
            return kept
    kept = keep_experts(memory, found) or found
    return kept if fits(memory, kept) else None


def _least_layers(memory: MemoryModel, placement: Placement) -> Placement | None:
    rest = placement
    if placement.engine is not EngineKind.LLAMA_CPP_PYTHON:
        rest = _with_experts_on_host(memory, placement)

    def without(count: int) -> Placement:
        return split_layers(memory, replace(rest, n_gpu_layers=placement.n_gpu_layers - count))

    found = least(1, placement.n_gpu_layers, lambda count: _gpus_hold(memory, without(count)))
    return without(found) if found is not None else None


def least(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """The least count in [low, high] that fits, if more never fits worse; None when even `high` does not."""
    if low > high or not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low


def split_layers(memory: MemoryModel, placement: Placement, *, kept_share: float = 0.0) -> Placement:
    """Layers per GPU: each card takes what it holds, in order, the rest goes to the last.

    Args:
        memory: the model on its devices.
        placement: without a split; one with a split is returned as it is.
        kept_share: part of every layer's experts that is to be kept on the GPUs beside what `placement` puts there.
    """
    gpus = memory.spaces.gpus
    if len(gpus) < 2 or not placement.n_gpu_layers:
        return placement
    counts: list[int] = []
    left = placement.n_gpu_layers
    first = memory.layers.n_all + 1 - placement.n_gpu_layers
    for index in range(len(gpus) - 1):

        def overfull(count: int, index: int = index, left: int = left, start: int = first) -> bool:
            row = _row(memory, placement, [*counts, count], left - count, index)
            kept = int(kept_share * _expert_bytes(memory, start, min(start + count, memory.layers.n_main)))
            return row.margin_bytes - _MODEL_ERROR_BYTES < kept

        too_many = least(1, left, overfull)
        count = left if too_many is None else too_many - 1
        counts.append(count)
        left -= count
        first += count
    return replace(placement, tensor_split=(*map(float, counts), float(left)))


def _row(memory: MemoryModel, placement: Placement, counts: list[int], left: int, index: int) -> DeviceMemory:
    """The ledger of GPU `index` when the layers beyond `counts` are on the last one."""
    zeros = [0.0] * (len(memory.spaces.gpus) - len(counts) - 1)
    split = (*map(float, counts), *zeros, float(left))
    return memory.estimate(replace(placement, tensor_split=split)).devices[index]
