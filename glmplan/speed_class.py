"""Speed coefficients of the devices of one machine, ready for a speed model.

Every term of a predicted time is `amount x factor`: the amount is arithmetic (bytes over bandwidth, FLOPs over peak,
layers, tokens), the factor is calibrated by class. docs/speed-model.md tells what each stands for.
"""

from glmplan.calibration import Calibration
from glmplan.estimate import Basis
from glmplan.noun import noun


@noun
class Factor:
    """A calibrated factor and its standard deviation in natural logarithms (0.1 is about ten per cent)."""

    value: float
    deviation: float


@noun
class SpeedFactors:
    """Factors of one class of devices.

    Decode: `read` over peak bandwidth, `launch_ms` per token, `math` over peak FLOP/s, `context_start_ms` (what the
    first few thousand tokens of context cost), `context_math` per token of context with flash attention,
    `converted` when the cache is not f16, `unfused` without flash attention.
    Prefill: `stream` (weights per prompt batch), `batch_math` (`batch_math_repacked` on a CPU whose weights are
    rearranged while loading), `batch_context` and, without flash attention, `batch_unfused`; `batch_converted` when
    the cache is not f16.
    """

    read: Factor
    launch_ms: Factor
    math: Factor
    context_start_ms: Factor
    context_math: Factor
    converted: Factor
    unfused: Factor
    stream: Factor
    batch_math: Factor
    batch_math_repacked: Factor
    batch_context: Factor
    batch_unfused: Factor
    batch_converted: Factor


@noun
class DeviceSpeed:
    """One device: peaks, its class's factors, and how wide an estimate is at least.

    `launches` multiplies `launch_ms`: 1 for a GPU, on a CPU the threads that wait for each other at every operation.
    `context_by_math`: context is paid in FLOPs even where a GPU pays in bytes (CPUs).
    `machine_deviation_*` is what machines of the class differ by, in logarithms, beyond what their peaks say;
    `least_spread_*` are factors: a range is never narrower than value / spread .. value x spread.
    """

    id: str
    speed_class: str
    bandwidth_bytes_per_s: float
    flops_per_s: float
    factors: SpeedFactors
    basis_decode: Basis
    basis_prefill: Basis
    launches: float = 1.0
    context_by_math: bool = False
    machine_deviation_decode: float = 0.0
    machine_deviation_prefill: float = 0.0
    least_spread_decode: float = 1.0
    least_spread_prefill: float = 1.0


@noun
class HybridSpeed:
    """Experts in main memory beside a GPU.

    `sync_ms` is the way of one layer's activations there and back; `staged_mapped` and `staged_pinned` multiply the
    time in which a prompt batch's experts are copied to the GPU at the two rates, by how the file was loaded.
    """

    sync_ms: Factor
    staged_mapped: Factor
    staged_pinned: Factor
    mapped_bytes_per_s: float
    pinned_bytes_per_s: float


@noun
class MachineSpeed:
    """Speeds of all devices, `gpus` in the order of the plan's `gpu0`, `gpu1`, ...

    `run_deviation_*` is what two runs of the same configuration by different people differ by, in logarithms;
    `context_deviation` what they differ by in what the context costs. `calibrations` are what was seen on this very
    machine, the newest first.
    """

    gpus: tuple[DeviceSpeed, ...]
    host: DeviceSpeed
    hybrid: HybridSpeed
    run_deviation_decode: float
    run_deviation_prefill: float
    context_deviation: float
    calibrations: tuple[Calibration, ...] = ()
