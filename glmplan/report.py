"""What a report shows beside its plan: curves, measured points, the command, and what could not be drawn and why."""

from typing import Final, Literal

from glmplan.comparison import FrontPoint
from glmplan.estimate import Estimate
from glmplan.noun import noun
from glmplan.plan import Plan

REPORT_SCHEMA: Final = "glmplan/report/1"


@noun
class ContextPoint:
    """What a device takes with a context of `n_ctx` tokens."""

    n_ctx: int
    needed_bytes: int


@noun
class ContextCurve:
    """The plan's placement by context under one KV cache type; `largest_n_ctx` None: no context fits."""

    cache_type: str
    points: tuple[ContextPoint, ...]
    largest_n_ctx: int | None


@noun
class ContextRoom:
    """Curves of the device that a longer context fills first, and how far it may be filled."""

    device: str
    usable_bytes: int
    curves: tuple[ContextCurve, ...]


@noun
class DepthPoint:
    """Forecast speeds with `depth_tokens` already in the context."""

    depth_tokens: int
    prefill_tokens_per_s: Estimate
    decode_tokens_per_s: Estimate


@noun
class MeasuredPoint:
    """One sample of a measurement of the plan's model on the plan's machine."""

    depth_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    engine: str
    measured_at: str
    synthetic: bool


@noun
class Front:
    """Every configuration that fits, and those that no other beats in both context and decode speed."""

    points: tuple[FrontPoint, ...]
    considered: tuple[FrontPoint, ...]


@noun
class CommandShown:
    """The exact command; `files` are (path, text) of configuration files it reads, `how` says what it is for."""

    text: str
    how: str
    files: tuple[tuple[str, str], ...] = ()


@noun
class Missing:
    """A part that cannot be shown: why, and what would bring it."""

    part: str
    why: str
    hint: str = ""


@noun
class Report:
    """Everything on the page; `machine_source` says how the machine is known, `notes` what the reader must know too."""

    plan: Plan
    written_at: str
    machine_source: str
    command: CommandShown | None
    room: ContextRoom | None
    depths: tuple[DepthPoint, ...]
    measured: tuple[MeasuredPoint, ...]
    front: Front | None
    notes: tuple[str, ...]
    missing: tuple[Missing, ...]

    def why_missing(self, part: str) -> Missing | None:
        """Why `part` is not shown; None when it is."""
        return next((missing for missing in self.missing if missing.part == part), None)


@noun
class ReportWritten:
    """The document of `glmplan report --json`."""

    schema: Literal["glmplan/report/1"] = REPORT_SCHEMA
    file: str
    bytes: int
    figures: tuple[str, ...]
    measured_points: int
    missing: tuple[Missing, ...]
