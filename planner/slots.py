"""Several requests at once: what the slots decode together, with one shared cache and with a cache each; pure.

In a shared (unified) cache the tokens of a step attend to everybody's context and throw the others' away (llama.cpp
PR 14363): with n busy slots the context costs n times as much. Separate caches cost nothing more, but none holds more
than its part of the context.
"""

from dataclasses import replace

from glmplan.estimate import Estimate
from glmplan.placement import Placement
from glmplan.planner.speed import SpeedModel


def together(speed: SpeedModel, placement: Placement, depth_tokens: int) -> Estimate:
    """Tokens per second of all slots when all are busy and `depth_tokens` of context are shared out among them."""
    n_busy = placement.n_parallel
    own = depth_tokens / n_busy
    return speed.decode(placement, depth_tokens=own * n_busy if placement.kv_unified else own, n_busy=n_busy)


def with_slots(placement: Placement, n_parallel: int, *, kv_unified: bool) -> Placement:
    """`placement` with that many slots; a row of logits is reserved for each."""
    n_outputs = max(placement.n_outputs, n_parallel)
    return replace(placement, n_parallel=n_parallel, n_outputs=n_outputs, kv_unified=kv_unified)
