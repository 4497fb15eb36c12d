"""A plan: a placement, the proof that it fits, the speed to expect, and the reasons.

The JSON of `Plan` is `glmplan/plan/1` (`schemas/plan-1.json`).
"""

from typing import Final, Literal

from glmplan.estimate import DeviceMemory, Estimate, SpeedEstimate
from glmplan.machine import Machine
from glmplan.noun import noun
from glmplan.placement import Placement
from glmplan.quality import Divergence
from glmplan.workload import Objective

PLAN_SCHEMA: Final = "glmplan/plan/1"


@noun
class PlannedGpu:
    """A device the plan was made for."""

    id: str
    name: str
    memory_total_bytes: int
    driver: str | None = None


@noun
class PlannedMachine:
    """What of the machine the plan depends on; `fingerprint` is 16 hexadecimal digits."""

    fingerprint: str
    os: str
    cpu: str
    host_memory_bytes: int
    gpus: tuple[PlannedGpu, ...]


@noun
class PlannedModel:
    """The file the plan is for; `file` is a path, or where the file can be had."""

    name: str
    architecture: str
    file: str
    file_bytes: int
    quantization: str
    n_layer: int
    n_ctx_train: int
    sha256: str | None = None
    synthetic: bool = False


@noun
class PlannedWorkload:
    """The demand the plan was judged by."""

    prompt_tokens: int
    output_tokens: int
    n_parallel: int
    objective: Objective


@noun
class PlannedDevice:
    """One row of the ledger: usable = weights + kv_cache + compute + overhead + margin."""

    id: str
    usable_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    margin_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Sum of the four parts."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.overhead_bytes

    @classmethod
    def of(cls, device: DeviceMemory) -> "PlannedDevice":
        """The ledger row of an estimate."""
        return cls(
            id=device.id,
            usable_bytes=device.usable_bytes,
            weights_bytes=device.weights_bytes,
            kv_cache_bytes=device.kv_cache_bytes,
            compute_bytes=device.compute_bytes,
            overhead_bytes=device.overhead_bytes,
            margin_bytes=device.margin_bytes,
        )


@noun
class PlannedMemory:
    """The ledger of every device."""

    devices: tuple[PlannedDevice, ...]
    basis: str


@noun
class Alternative:
    """A runner-up and why it lost."""

    quantization: str
    placement: Placement
    memory: PlannedMemory
    speed: SpeedEstimate
    why_not: str


@noun
class Price:
    """What one more step costs or buys, in words with its numbers; those that have one stand beside them.

    `frees_bytes` is negative where the step takes memory; `together_tokens_per_s` is decode of all slots, all busy.
    """

    step: str
    effect: str
    n_ctx: int | None = None
    frees_bytes: int | None = None
    decode_tokens_per_s: Estimate | None = None
    prefill_tokens_per_s: Estimate | None = None
    together_tokens_per_s: Estimate | None = None


@noun
class PlannedQuality:
    """How far the file, and the KV cache beside it, move the model's answers."""

    file: Divergence
    cache: Divergence


@noun
class Pins:
    """What the user asked for by number or name: nothing changes it later; None where the choice was left open."""

    quant: str | None = None
    n_ctx: int | None = None
    cache_type: str | None = None
    n_parallel: int | None = None
    min_decode_tokens_per_s: float | None = None
    reserve_bytes: int = 0


@noun
class Plan:
    """One decision, complete enough to launch, to export and to argue with."""

    schema: Literal["glmplan/plan/1"] = PLAN_SCHEMA
    glmplan_version: str
    created_at: str
    machine: PlannedMachine
    model: PlannedModel
    workload: PlannedWorkload
    placement: Placement
    memory: PlannedMemory
    speed: SpeedEstimate
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    alternatives: tuple[Alternative, ...] = ()
    prices: tuple[Price, ...] = ()
    quality: PlannedQuality | None = None
    pins: Pins | None = None


@noun
class PlanRequest:
    """Everything a search is given besides the model files; pins are `None` when left to the search."""

    machine: Machine
    objective: Objective = Objective.BALANCED
    quant: str | None = None
    n_ctx: int | None = None
    n_ctx_max: bool = False
    cache_type: str | None = None
    n_parallel: int = 1
    min_decode_tokens_per_s: float | None = None
    reserve_bytes: int = 0
    prompt_tokens: int = 2048
    output_tokens: int = 512
    depth_tokens: int | None = None
    force: bool = False
