"""What a person is told of engines that glmplan has started."""

from typing import Final, Literal

from glmplan.measurement import MemoryReport, SpeedSample
from glmplan.noun import noun
from glmplan.proof import Proof
from glmplan.step_down import StepDown

LAUNCH_SCHEMA: Final = "glmplan/launch/1"
STATUS_SCHEMA: Final = "glmplan/status/1"


@noun
class LaunchReport:
    """A launch that answered: where it is, what it took, how fast it was.

    `memory` is what the engine's own log says it allocated, `resident_bytes` what the system counts (file pages
    mapped into the process included; None where a daemon that runs anyway does the work). `answer` is one streamed
    completion and `speed` the short measurement; None when nothing was asked of the engine (`--proof none`). `proof`
    compares both with the plan.
    """

    schema: Literal["glmplan/launch/1"] = LAUNCH_SCHEMA
    url: str
    model: str
    api_key_file: str | None
    engine: str
    engine_version: str | None
    pid: int
    detached: bool
    synthetic: bool
    log: str
    load_ms: float
    memory: MemoryReport
    resident_bytes: int | None
    answer: str | None
    speed: SpeedSample | None
    n_ctx: int
    step_downs: tuple[StepDown, ...] = ()
    proof: Proof


@noun
class EngineStatus:
    """One engine; `state` is ready, loading, silent, refusing, restarting or gave-up.

    `last_reason` is why it was started again the last time, or why it was given up.
    """

    url: str
    port: int
    state: str
    model: str
    quantization: str
    synthetic: bool
    engine: str
    engine_version: str | None
    n_ctx: int
    pid: int | None
    detached: bool
    started_at: str
    restarts: int
    step_downs: int
    last_reason: str | None
    resident_bytes: int | None
    log: str


@noun
class StatusReport:
    """All running engines: what `glmplan status --json` prints."""

    schema: Literal["glmplan/status/1"] = STATUS_SCHEMA
    engines: tuple[EngineStatus, ...]
