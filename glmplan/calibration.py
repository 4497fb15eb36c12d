"""Speeds that were seen on this machine, and what they say of a speed model's own figures."""

from enum import StrEnum

from glmplan.noun import noun
from glmplan.placement import Placement


class Source(StrEnum):
    """What saw a speed."""

    MEASUREMENT = "measurement"
    REHEARSAL = "rehearsal"


@noun
class SpeedPoint:
    """Milliseconds per token at a mean depth, and their deviation in natural logarithms (0.1 is about ten per cent)."""

    depth_tokens: float
    ms: float
    deviation: float


@noun
class SpeedRecord:
    """One configuration as it was seen: decode and prefill of one request at a time, at one or more depths.

    A rehearsal's points are of the full model, extrapolated; `deepest_tokens` is the deepest that was really reached.
    """

    source: Source
    taken_at: str
    model: str
    quantization: str
    n_layer: int
    placement: Placement
    decode: tuple[SpeedPoint, ...]
    prefill: tuple[SpeedPoint, ...]
    deepest_tokens: float


@noun
class Ratio:
    """Seen time over computed time, with its deviation in natural logarithms."""

    value: float
    deviation: float


@noun
class PhaseRatios:
    """Ratios of one phase: of everything but the context, and of what the context costs."""

    weights: Ratio
    context: Ratio


@noun
class Calibration:
    """A record beside what the speed model had computed for it.

    `host_share` is the part of a token's computed time that was spent in main memory beside GPUs.
    """

    record: SpeedRecord
    decode: PhaseRatios
    prefill: PhaseRatios
    host_share: float
