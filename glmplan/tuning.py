"""What `glmplan tune` measured and decided."""

from typing import Final, Literal

from glmplan.estimate import Estimate
from glmplan.noun import noun
from glmplan.plan import Plan

TUNE_SCHEMA: Final = "glmplan/tune/1"


@noun
class NoiseFloor:
    """How far runs of the same plan lie apart, as shares (0.02: two per cent); `wished` is the goal's own speed."""

    runs: int
    wished: float
    prefill: float
    decode: float


@noun
class TunedArm:
    """One configuration that ran, or could not.

    Speeds are medians with lowest and highest run, of the final where it took part, else of the heats (`phase`).
    `ratio_to_plan` is the median of the goal's speed over the plan's of the same round.
    """

    name: str
    role: str
    turned: str
    phase: str | None
    runs: int
    prefill_tokens_per_s: Estimate | None
    decode_tokens_per_s: Estimate | None
    ratio_to_plan: float | None
    failed: str | None = None


@noun
class LeftAlone:
    """A knob that was not turned, and why."""

    turned: str
    why: str


@noun
class AgainstRival:
    """The shipped configuration beside a rival: medians over the same rounds of the final, shipped over rival."""

    name: str
    prefill_ratio: float
    decode_ratio: float


@noun
class TuneReport:
    """The document of `glmplan tune --json`.

    `outcome` is tuned, kept, rival, rival_even or no_time; `plan` is what is to be run from now on.
    """

    schema: Literal["glmplan/tune/1"] = TUNE_SCHEMA
    created_at: str
    goal: str
    depth_tokens: int
    prompt_tokens: int
    output_tokens: int
    budget_s: float
    used_s: float
    engine: str
    engine_version: str | None
    machine_fingerprint: str
    synthetic: bool
    noise: NoiseFloor
    arms: tuple[TunedArm, ...]
    left_alone: tuple[LeftAlone, ...]
    outcome: str
    shipped: str
    why: str
    rounds: int
    default_is_best: bool
    against_rivals: tuple[AgainstRival, ...]
    plan: Plan
