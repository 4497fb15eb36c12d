"""A rehearsal: what a configuration allocates, and how fast cuts of its model really run on this machine.

The JSON of `Rehearsal` is `glmplan/rehearsal/1` (docs/rehearse.md).
"""

from enum import StrEnum
from typing import Final, Literal

from glmplan.estimate import Estimate
from glmplan.noun import noun
from glmplan.placement import Placement
from glmplan.plan import PlannedDevice

REHEARSAL_SCHEMA: Final = "glmplan/rehearsal/1"


class Phase(StrEnum):
    """Which of the two times."""

    DECODE = "decode"
    PREFILL = "prefill"


@noun
class LayerKind:
    """Where layers compute: the device, and whether their routed experts are in main memory instead."""

    device: str
    experts_on_host: bool = False

    @property
    def name(self) -> str:
        """`host`, `gpu0`, or `gpu0+host` when the experts are in main memory."""
        return f"{self.device}+host" if self.experts_on_host else self.device


@noun
class Cut:
    """A stand-in of fewer layers at the true widths.

    `layers` are the layers of the full model it has, `kinds` where each computes. The first `n_lead` of them are in
    every cut and belong to the fixed part of the time.
    """

    name: str
    layers: tuple[int, ...]
    kinds: tuple[LayerKind, ...]
    n_lead: int

    @property
    def is_lead(self) -> bool:
        """Whether it has nothing but the first layers: it is cheap to fill to a depth."""
        return len(self.layers) == self.n_lead


@noun
class CutFile:
    """What a cut took: tensor bytes, bytes on disk while it was there, the largest resident memory of its engine."""

    cut: Cut
    tensor_bytes: int
    disk_bytes: int
    resident_bytes: int | None
    load_ms: float


@noun
class Timing:
    """One timed request: milliseconds per token of `n_tokens`, at their mean depth.

    `others_busy` is how many cores other programs used meanwhile; `disturbed` when that was too much to count it.
    """

    cut: str
    phase: Phase
    depth_tokens: float
    n_tokens: int
    ms_per_token: float
    others_busy: float
    disturbed: bool = False


@noun
class Point:
    """Timings of one cut at one depth together: their median, its standard error, and what the fitted line says."""

    cut: str
    depth_tokens: float
    samples: int
    median_ms: float
    lowest_ms: float
    highest_ms: float
    standard_error_ms: float
    fitted_ms: float


@noun
class Coefficient:
    """A part of the time: milliseconds per token, and how many of it the full model has.

    `part` is `fixed` (everything outside the layers, and the first of them), `layer` (one layer of `kind`) or
    `context` (one layer of `kind`, per thousand tokens of context).
    """

    part: Literal["fixed", "layer", "context"]
    kind: str
    ms: float
    standard_error_ms: float
    in_full_model: float


@noun
class Regression:
    """One phase: t(layers, depth) = fixed + layers x (layer + context x depth).

    `relative_noise` is the deviation of single timings, `residual` the mean distance of the points from the line,
    both as parts of the time.
    """

    phase: Phase
    coefficients: tuple[Coefficient, ...]
    points: tuple[Point, ...]
    relative_noise: float | None
    residual: float
    freedom: int
    deepest_tokens: float


@noun
class Extrapolation:
    """Speeds of the full model at a depth; `beyond`: deeper than any cut was measured."""

    depth_tokens: int
    decode_tokens_per_s: Estimate
    prefill_tokens_per_s: Estimate
    beyond: bool


@noun
class Allocation:
    """Memory by device; `basis` as everywhere, `source` in words."""

    devices: tuple[PlannedDevice, ...]
    basis: str
    source: str


@noun
class Footprint:
    """What a rehearsal took itself."""

    seconds: float
    budget_s: float
    peak_resident_bytes: int
    peak_disk_bytes: int
    files_written: tuple[str, ...]
    files_left: tuple[str, ...]


@noun
class Rehearsal:
    """One rehearsal of one plan on one machine."""

    schema: Literal["glmplan/rehearsal/1"] = REHEARSAL_SCHEMA
    created_at: str
    glmplan_version: str
    machine_fingerprint: str
    engine: str
    engine_version: str | None
    model: str
    quantization: str
    file_bytes: int
    n_layer: int
    placement: Placement
    allocation: Allocation
    cuts: tuple[CutFile, ...]
    timings: tuple[Timing, ...]
    decode: Regression
    prefill: Regression
    depth_tokens: int
    speeds: tuple[Extrapolation, ...]
    footprint: Footprint
    notes: tuple[str, ...]
