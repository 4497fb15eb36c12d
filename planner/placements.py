"""What fits of one model file, by cache type and context; memory alone decides, so machines of one size share it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

from glmplan.estimate import MemoryEstimate
from glmplan.model import ModelProfile
from glmplan.placement import Placement
from glmplan.planner.batches import fill_with_batch, with_long_batches
from glmplan.planner.candidates import Demand, base_of, cache_types, contexts, largest_context
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload, fits_somehow, host_expert_bytes, on_gpus, partly_offloaded
from glmplan.planner.sameness import Same
from glmplan.planner.spaces import Spaces
from glmplan.units import MIB

_HOST_SLACK_BYTES: Final = 1024 * MIB
_SHORT_CONTEXT: Final = 8192

Fitting = tuple[Placement, MemoryEstimate]


def fitting(model: ModelProfile, spaces: Spaces, demand: Demand) -> tuple[Fitting, ...]:
    """Feasible placements with their ledgers: every cache type and context, as little off the GPUs as fits."""
    return _fitting(Same(model), spaces, demand)


@lru_cache(maxsize=512)
def _fitting(model: Same[ModelProfile], spaces: Spaces, demand: Demand) -> tuple[Fitting, ...]:
    memory = MemoryModel(model.value, spaces)
    return tuple((placement, memory.remembered(placement)) for placement in _placements(memory, demand))


def _placements(memory: MemoryModel, demand: Demand) -> Iterator[Placement]:
    """By cache type and context, the longest contexts with and without the host's help among them."""
    for cache in cache_types(demand.cache_type):
        may_be_whole = True
        for n_ctx in _contexts(memory, demand, cache):
            base = base_of(memory, demand, cache, n_ctx)
            # What is too long to stay on the GPUs whole is so at any greater length.
            found = best_offload(memory, base) if may_be_whole else partly_offloaded(memory, base)
            if found is None:
                break
            may_be_whole = may_be_whole and not _leaves_gpus(memory, found)
            yield found
            if demand.long_batches and memory.spaces.gpus:
                for longer in with_long_batches(memory, found):
                    yield fill_with_batch(memory, longer) if host_expert_bytes(memory, longer) else longer


def _contexts(memory: MemoryModel, demand: Demand, cache: str) -> tuple[int, ...]:
    """The ladder up to what fits, with the longest contexts that do."""
    n_ctx_train = memory.model.n_ctx_train
    ladder = contexts(n_ctx_train, demand.n_ctx)
    if demand.n_ctx is not None:
        return ladder
    longest = _longest_contexts(memory, demand, cache)
    most = max(longest, default=0)
    # What is shorter than any context worth having counts only where nothing longer fits.
    least = max(ladder[0], demand.wanted_ctx if most >= demand.wanted_ctx else 0)
    worth = {n_ctx for n_ctx in ladder if least <= n_ctx <= most} | {n_ctx for n_ctx in longest if n_ctx >= ladder[0]}
    return tuple(sorted(worth or longest))


def _leaves_gpus(memory: MemoryModel, placement: Placement) -> bool:
    if not memory.spaces.gpus:
        return False
    return placement.n_gpu_layers <= memory.layers.n_all or host_expert_bytes(memory, placement) > 0


def _longest_contexts(memory: MemoryModel, demand: Demand, cache: str) -> list[int]:
    """The longest contexts with all weights on the GPUs and with what fits at all.

    Main memory keeps a little for the system and finished prompts, unless that would leave less than a short context.
    """
    spaces, n_ctx_train = memory.spaces, memory.model.n_ctx_train
    host = replace(spaces.host, usable_bytes=max(0, spaces.host.usable_bytes - _HOST_SLACK_BYTES))
    roomy = MemoryModel(memory.model, replace(spaces, host=host))
    base = base_of(memory, demand, cache, n_ctx_train)
    found: list[int] = []
    for fits in (_all_on_gpus, fits_somehow):
        easily = largest_context(roomy, base, n_ctx_train, fits)
        if easily is not None and easily.n_ctx >= _SHORT_CONTEXT:
            found.append(easily.n_ctx)
            continue
        barely = largest_context(memory, base, n_ctx_train, fits)
        if barely is not None:
            found.append(max(easily.n_ctx if easily else 0, min(barely.n_ctx, _SHORT_CONTEXT)))
    return found


def _all_on_gpus(memory: MemoryModel, placement: Placement) -> bool:
    return on_gpus(memory, placement) is not None
