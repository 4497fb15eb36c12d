"""Longer prompt batches: what they cost in experts, and what free memory buys of them; pure."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from glmplan.placement import Placement
from glmplan.planner.candidates import undecided
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload, fits, keep_experts

# With experts in main memory every prompt batch copies them once (op offload): long batches pay.
_LONG_BATCHES: Final = (1024, 2048)
LARGEST_BATCH: Final = 4096
_BATCH_STEP: Final = 32


def with_long_batches(memory: MemoryModel, placement: Placement) -> Iterator[Placement]:
    """`placement` with longer batches, and as few experts in main memory as those leave room for."""
    for n_ubatch in _LONG_BATCHES:
        full = placement.n_gpu_layers > memory.layers.n_all
        start = undecided(memory, placement) if full else placement
        longer = replace(start, n_ubatch=n_ubatch, n_batch=max(start.n_batch, n_ubatch))
        found = best_offload(memory, longer) if full else keep_experts(memory, longer)
        if found is not None and n_ubatch <= placement.n_ctx:
            yield found


def fill_with_batch(memory: MemoryModel, placement: Placement) -> Placement:
    """The longest batch that fits as everything is placed: memory too small for one more expert still buys prefill."""
    longest = min(LARGEST_BATCH, placement.n_ctx)

    def at(n_ubatch: int) -> Placement:
        return replace(placement, n_ubatch=n_ubatch, n_batch=max(placement.n_batch, n_ubatch))

    low, high = placement.n_ubatch // _BATCH_STEP, longest // _BATCH_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if fits(memory, at(middle * _BATCH_STEP)):
            low = middle
        else:
            high = middle - 1
    return at(max(placement.n_ubatch, low * _BATCH_STEP))
