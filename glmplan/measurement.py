"""What really happened: an engine's own buffer sizes, the speeds seen by a client, and of what they were taken.

Records outlive versions of glmplan: fields are added with a default, so that old lines still load.
"""

from enum import StrEnum
from typing import Final

from glmplan.estimate import SpeedEstimate
from glmplan.noun import noun
from glmplan.placement import Placement
from glmplan.plan import PlannedMachine
from glmplan.units import MIB

# Engines print sizes in MiB with two decimals: a buffer is within this many bytes of the real one.
ROUNDING_BYTES: Final = -(-MIB // 200)


class Origin(StrEnum):
    """Which command took a measurement."""

    BENCH = "bench"
    TUNE = "tune"
    REHEARSE = "rehearse"
    RUN = "run"


@noun
class BufferSize:
    """One buffer line of an engine's load log: `kind` is model, kv, compute or output."""

    device: str
    kind: str
    n_bytes: int


@noun
class MemoryReport:
    """Buffers an engine printed while loading, in log order; where there are none, `why`.

    `total_bytes` is what an engine says it holds in all, `gpu_bytes` its part in GPU memory; None where it does not.
    """

    buffers: tuple[BufferSize, ...]
    offloaded_layers: int | None = None
    total_layers: int | None = None
    why: str | None = None
    total_bytes: int | None = None
    gpu_bytes: int | None = None

    def sum_bytes(self, kind: str) -> int:
        """Bytes of all buffers of one kind."""
        return sum(buffer.n_bytes for buffer in self.buffers if buffer.kind == kind)


@noun
class SpeedSample:
    """One streamed request as its client saw it; times by the client's clock unless `server_timed`.

    `n_streams` requests ran at once; the aggregate rates are those of all of them together (None: not recorded).
    `prefill_joules` and `decode_joules` are what the meter counted until and after the first token, divided by
    `n_streams`; None without a meter.
    """

    prompt_tokens: int
    output_tokens: int
    ttft_ms: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    tpot_ms: float
    depth_tokens: int
    server_timed: bool
    n_streams: int = 1
    aggregate_prefill_tokens_per_s: float | None = None
    aggregate_decode_tokens_per_s: float | None = None
    prefill_joules: float | None = None
    decode_joules: float | None = None


@noun
class MeasuredFile:
    """The model file that was measured: its name without folders, and its size."""

    name: str
    n_bytes: int


@noun
class EnergyMeter:
    """What counted the energy (`nvml`, `rapl`, `powermetrics`) and of which parts; None with the reason `why`."""

    meter: str | None
    covers: tuple[str, ...] = ()
    why: str | None = None


@noun
class Measurement:
    """A benchmark of one running engine.

    `placement` is the configuration that was served, None for a server that glmplan has not started; `forecast` what
    its plan had said of the speed.
    """

    created_at: str
    glmplan_version: str
    engine: str
    engine_version: str | None
    model: str
    quantization: str
    synthetic: bool
    machine_fingerprint: str
    samples: tuple[SpeedSample, ...]
    memory: MemoryReport | None = None
    load_ms: float | None = None
    resident_bytes: int | None = None
    origin: Origin = Origin.BENCH
    machine: PlannedMachine | None = None
    file: MeasuredFile | None = None
    n_layer: int | None = None
    placement: Placement | None = None
    forecast: SpeedEstimate | None = None
    energy: EnergyMeter | None = None
