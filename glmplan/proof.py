"""The proof of a launch: how deep it goes, the ledger beside the engine's own buffers, speeds at depth, round trips."""

from enum import StrEnum

from glmplan.estimate import Basis, SpeedEstimate
from glmplan.measurement import SpeedSample
from glmplan.noun import noun
from glmplan.proof_settings import ProofKind


class LedgerPart(StrEnum):
    """One line of a device: three parts of the plan's ledger, what lies beside them, and the whole process."""

    WEIGHTS = "weights"
    KV_CACHE = "kv_cache"
    COMPUTE = "compute"
    REPACKED = "repacked"
    LOGITS = "logits"
    OVERHEAD = "overhead"
    RESIDENT_SET = "resident_set"

    @property
    def words(self) -> str:
        """The part as a table names it."""
        return "KV cache" if self is LedgerPart.KV_CACHE else self.value.replace("_", " ")


@noun
class ProofDepth:
    """How much of a slot's context is filled, and why that much.

    `filled_tokens` is the prompt: all of it before the answer, `full_tokens` when the whole of `context_tokens` is
    used. Seconds are those of the filled prompt alone, the short measurement before it not counted; None where
    nothing is filled or no limit holds. `basis` says what they rest on.
    """

    filled_tokens: int
    full_tokens: int
    context_tokens: int
    expected_s: float
    full_expected_s: float
    limit_s: float | None
    basis: Basis
    why: str


@noun
class LedgerLine:
    """One part of one device: the plan's bytes, those of the engine's log or the system, and how they compare.

    `low_bytes` and `high_bytes` are the range the ledger states, None where it states no such bound. A number that
    has no counterpart is None with the reason `why`.
    """

    device: str
    part: LedgerPart
    forecast_bytes: int | None
    low_bytes: int | None
    high_bytes: int | None
    basis: Basis | None
    measured_bytes: int | None
    difference_bytes: int | None
    difference_ratio: float | None
    within_range: bool | None
    why: str | None


@noun
class SpeedLine:
    """What was measured at a depth and the plan's forecast of the very same; None with the reason `why`."""

    measured: SpeedSample
    forecast: SpeedEstimate | None
    why: str | None = None


@noun
class RoundTrip:
    """A conversation with a known end: `passed` is None where it was not tried, `why` says why not or what failed.

    `steps` are what came back, in words.
    """

    passed: bool | None
    why: str | None = None
    steps: tuple[str, ...] = ()


@noun
class Proof:
    """What a launch was seen to do: `warnings` are the differences nobody should overlook."""

    asked: ProofKind
    depth: ProofDepth | None
    speeds: tuple[SpeedLine, ...]
    ledger: tuple[LedgerLine, ...]
    tool_call: RoundTrip
    thinking: RoundTrip
    warnings: tuple[str, ...]
