"""A placement judged: its memory, its speed at the depth that counts, and what a ranking sees of it."""

from dataclasses import dataclass
from typing import Final

from glmplan.engine import EngineKind
from glmplan.estimate import MemoryEstimate, SpeedEstimate
from glmplan.model import ModelProfile
from glmplan.placement import Placement
from glmplan.plan import PlanRequest
from glmplan.planner.candidates import Demand, base_of, cache_types, contexts
from glmplan.planner.layers import embedding_bytes
from glmplan.planner.memory import MemoryModel
from glmplan.planner.mtp import Drafting, drafted, drafting
from glmplan.planner.objective import Score, depth_of, wanted_context
from glmplan.planner.placements import fitting
from glmplan.planner.spaces import Spaces
from glmplan.planner.speed import SpeedModel
from glmplan.quality import QualityTable
from glmplan.speed_class import MachineSpeed
from glmplan.units import KIB
from glmplan.workload import Objective

_UNRANKED: Final = -100
# More than padding, less than any expert.
_SMALLEST_TENSOR: Final = 64 * KIB


@dataclass(frozen=True, slots=True)
class Candidate:
    """A feasible placement of one model file with its proof and its speed."""

    model: ModelProfile
    placement: Placement
    memory: MemoryEstimate
    speed: SpeedEstimate


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all candidates share: room, speeds, threads (of prompt batches the same unless said) and the engine.

    `can_repack`: the engine can compute with rearranged weights on this processor.
    """

    spaces: Spaces
    speed: MachineSpeed
    engine: EngineKind
    n_threads: int
    n_threads_batch: int | None = None
    why_threads: str = ""
    quality: QualityTable | None = None
    can_repack: bool = True


class Judge:
    """Judges placements of one model file on one machine for one request."""

    def __init__(
        self, model: ModelProfile, around: Surroundings, request: PlanRequest, *, every_context: bool = False
    ) -> None:
        """Prepare the memory and the speed model of `model`; `every_context`: also those that cannot win."""
        self.model = model
        self.around = around
        self.request = request
        self.memory = MemoryModel(model, around.spaces)
        self.speed = SpeedModel(self.memory, around.speed)
        self.demand = Demand(
            engine=around.engine,
            n_threads=around.n_threads,
            n_threads_batch=around.n_threads_batch or around.n_threads,
            n_parallel=request.n_parallel,
            n_ctx=request.n_ctx,
            cache_type=request.cache_type,
            long_batches=request.objective is Objective.PREFILL_SPEED,
            wanted_ctx=0 if every_context or request.min_decode_tokens_per_s else wanted_context(request),
        )

    def feasible(self) -> list[Candidate]:
        """Everything that fits, with its speed."""
        found = fitting(self.model, self.around.spaces, self.demand)
        return [self.judge(placement, memory) for placement, memory in found]

    def fastest_decode(self) -> float:
        """Tokens per second that nothing on this machine exceeds: everything on its GPUs, however little they hold."""
        shortest = self.request.n_ctx or min(contexts(self.model.n_ctx_train, None))
        depth = depth_of(shortest, self.request.depth_tokens)
        found = (base_of(self.memory, self.demand, cache, shortest) for cache in cache_types(self.demand.cache_type))
        return max(self.speed.decode(placement, depth_tokens=depth).value for placement in found)

    def judge(self, placement: Placement, memory: MemoryEstimate | None = None) -> Candidate:
        """`placement` with its memory (where that is known, it is not asked again) and speed."""
        depth = depth_of(placement.n_ctx, self.request.depth_tokens)
        speed = self.speed.estimate(placement, depth_tokens=depth, prompt_tokens=self.request.prompt_tokens)
        return Candidate(
            model=self.model,
            placement=placement,
            memory=memory or self.memory.estimate(placement),
            speed=drafted(self.memory, self.speed, placement, speed),
        )

    def drafting(self, candidate: Candidate) -> Drafting | None:
        """What drafting would take and give; None for a file without the block, and for who drafts already."""
        if candidate.placement.load_mtp:
            return None
        return drafting(self.memory, self.speed, candidate.placement, candidate.speed)


def reaches(candidate: Candidate, floor: float | None) -> bool:
    """Whether decode reaches `floor` tokens per second."""
    return floor is None or candidate.speed.decode_tokens_per_s.value >= floor


def keeps_floor(candidate: Candidate, instead_of: Candidate, request: PlanRequest) -> bool:
    """Whether `candidate` decodes as fast as was asked; what is too slow itself may be replaced by anything."""
    floor = request.min_decode_tokens_per_s
    return reaches(candidate, floor) or not reaches(instead_of, floor)


def score_of(candidate: Candidate, request: PlanRequest) -> Score:
    """What the ranking sees; a file whose quality nobody ranked competes by speed and context alone."""
    placement, speed = candidate.placement, candidate.speed
    rank_of_file = candidate.model.quality_rank
    decode, prefill = _told(speed.decode_tokens_per_s.value), _told(speed.prefill_tokens_per_s.value)
    return Score(
        quality=-rank_of_file if rank_of_file is not None else _UNRANKED,
        n_ctx=placement.n_ctx,
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        full_cache=placement.cache_type_k == "f16",
        offloaded_bytes=offloaded_bytes(candidate),
        request_s=_told(request.prompt_tokens / prefill + request.output_tokens / decode),
    )


def _told(value: float) -> float:
    """A speed without what the order of additions makes of its last digits."""
    return float(f"{value:.9g}")


def offloaded_bytes(candidate: Candidate) -> int:
    """Weights in main memory beside the embedding, which always is."""
    # Both are sums of whole tensors; a buffer's rounding is less than any of them.
    beside = candidate.memory.devices[-1].weights_bytes - embedding_bytes(candidate.model)
    return beside if beside >= _SMALLEST_TENSOR else 0
