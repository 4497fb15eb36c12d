"""How many users one replica serves in its slot, and how fast: one search per number of users; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from glmplan.engine import EngineKind
from glmplan.errors import PlanningError
from glmplan.estimate import Estimate
from glmplan.model import ModelProfile
from glmplan.plan import PlanRequest
from glmplan.planner.cluster_slots import Slot
from glmplan.planner.judging import Candidate
from glmplan.planner.memory import MemoryModel
from glmplan.planner.objective import depth_of
from glmplan.planner.search import search
from glmplan.planner.speed import SpeedModel
from glmplan.workload import Objective

_USERS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of every replica.

    `n_ctx` is the context one user may fill, `floor` the tokens per second each shall see; `floor_is_asked`: the user
    named it, so that a replica which cannot reach it even for one user is none. `most_users`: more of them are worth
    more than speed.
    """

    n_ctx: int
    floor: float
    floor_is_asked: bool
    objective: Objective
    cache_type: str | None
    prompt_tokens: int
    output_tokens: int
    depth_tokens: int
    most_users: bool = False

    @classmethod
    def of(cls, request: PlanRequest, n_ctx: int, usable_decode: float) -> "Wish":
        """The wish for `n_ctx` tokens per user of a request made for one machine."""
        asked = request.min_decode_tokens_per_s
        return cls(
            n_ctx=n_ctx,
            floor=usable_decode if asked is None else asked,
            floor_is_asked=asked is not None,
            objective=request.objective,
            cache_type=request.cache_type,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            depth_tokens=depth_of(n_ctx, request.depth_tokens),
        )


@dataclass(frozen=True, slots=True)
class Load:
    """One replica with all its users busy; `likely_users` is how many see the floor speed at its low estimate."""

    candidate: Candidate
    request: PlanRequest
    users: int
    likely_users: int
    decode: Estimate
    prefill: Estimate


def best_load(slot: Slot, model: ModelProfile, wish: Wish) -> Load:
    """The number of users with the most tokens per second together, each at the floor or above; or the most users.

    Raises:
        PlanningError: not one user fits, or not at the speed asked for.
    """
    best: Load | None = None
    for users in _numbers(slot, model, wish):
        try:
            load = _load(slot, model, wish, users)
        except PlanningError:
            if best is None:
                raise
            break
        too_slow = load.decode.value / users < wish.floor
        if best is not None and (too_slow or (load.decode.value < best.decode.value and not wish.most_users)):
            break
        best = load
        if too_slow:
            break
    assert best is not None  # noqa: S101 - the first number is 1, and it either loads or raises
    return best


def _numbers(slot: Slot, model: ModelProfile, wish: Wish) -> Iterator[int]:
    """Numbers of users worth trying, up to the most that the model's trained context holds."""
    most = 1 if slot.around.engine is EngineKind.LLAMA_CPP_PYTHON else max(1, model.n_ctx_train // wish.n_ctx)
    yield from (number for number in _USERS if number < most)
    yield most


def request_for(slot: Slot, wish: Wish, users: int) -> PlanRequest:
    """The search of one machine for `users` at once in `slot`."""
    return PlanRequest(
        machine=slot.machine,
        objective=wish.objective,
        n_ctx=wish.n_ctx * users,
        cache_type=wish.cache_type,
        n_parallel=users,
        min_decode_tokens_per_s=wish.floor if wish.floor_is_asked else None,
        prompt_tokens=wish.prompt_tokens,
        output_tokens=wish.output_tokens,
        depth_tokens=wish.depth_tokens,
    )


def _load(slot: Slot, model: ModelProfile, wish: Wish, users: int) -> Load:
    request = request_for(slot, wish, users)
    candidate = search([model], slot.around, request)[0]
    speed = SpeedModel(MemoryModel(model, slot.around.spaces), slot.around.speed)

    def decode(busy: int) -> Estimate:
        return speed.decode(candidate.placement, depth_tokens=wish.depth_tokens, n_busy=busy)

    likely = next((busy for busy in range(users, 0, -1) if decode(busy).low / busy >= wish.floor), 1)
    return Load(
        candidate=candidate,
        request=request,
        users=users,
        likely_users=likely,
        decode=decode(users),
        prefill=candidate.speed.prefill_tokens_per_s,
    )
