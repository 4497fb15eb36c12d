"""Numbers that say where they come from: memory per device and speed with a range."""

from enum import StrEnum

from glmplan.noun import noun


class Basis(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    CALIBRATED = "calibrated"
    ROOFLINE = "roofline"
    ASSUMED = "assumed"


@noun
class Estimate:
    """A value and the range meant to hold 80 % of outcomes."""

    value: float
    low: float
    high: float
    basis: Basis


@noun
class DeviceMemory:
    """What a plan takes on one device (`gpu0`, `gpu1`, ... or `host`), in bytes.

    `weights`, `kv_cache` and `compute` are llama.cpp's own buffers; `overhead` is what it does not count.
    """

    id: str
    usable_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Sum of the four parts."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.overhead_bytes

    @property
    def margin_bytes(self) -> int:
        """What stays free; negative when the plan does not fit."""
        return self.usable_bytes - self.needed_bytes

    @property
    def fits(self) -> bool:
        """Whether the device holds the plan."""
        return self.margin_bytes >= 0


@noun
class MemoryEstimate:
    """Memory by device; `basis` is `roofline` for the closed form, `measured` for the engine's dry run."""

    devices: tuple[DeviceMemory, ...]
    basis: Basis

    @property
    def fits(self) -> bool:
        """Whether every device holds its part."""
        return all(device.fits for device in self.devices)


@noun
class SpeedEstimate:
    """Speeds at `depth_tokens` of context; TTFT for the workload's prompt, TPOT at batch 1."""

    depth_tokens: int
    prefill_tokens_per_s: Estimate
    decode_tokens_per_s: Estimate
    ttft_ms: Estimate
    tpot_ms: Estimate
