"""Our bytes beside the engine's: exact where they are stated to be, and how far compute buffers are off."""

import statistics
from dataclasses import dataclass, field

from oracle_samples import Sample, memory_of

from glmplan.breakdown import Breakdown
from glmplan.planner.memory import Buffers
from glmplan.units import MIB

# The bars, in MiB: how far a compute buffer may be under the engine's, and the median error of all.
FULL_UNDER, PARTIAL_UNDER, FULL_MEDIAN = 10.0, 8.0, 1.0
# Part of the engine's buffer that ours may be over, in the median.
PARTIAL_OVER = 0.15
# Rows of logits from which the output layer is worth copying in; below, so few of the batch are computed on the host.
_FEW_OUTPUTS, _TOKENS_PER_OUTPUT, _TOKENS_PER_OUTPUT_LARGE = 32, 24, 128


def exact_parts(theirs: tuple[int, int, int], ours: Buffers) -> None:
    """Weights and KV cache to the byte."""
    assert theirs[:2] == (ours.weights_bytes, ours.kv_cache_bytes)


@dataclass
class Errors:
    """Errors of GPU compute buffers in MiB: with everything offloaded, and with layers on the CPU (error, size)."""

    full: list[float] = field(default_factory=list[float])
    partial: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def compare(self, sample: Sample, cards: str, answer: Breakdown) -> None:
        """Hold one configuration against the engine's answer."""
        assert answer.refusal is None, (answer.refusal, sample)
        memory = memory_of(sample, cards)
        devices, host = memory.buffers(sample.placement)
        theirs = answer.device_bytes(None)
        exact_parts(theirs, host)
        assert host.compute_bytes >= theirs[2], sample
        if _is_exact_on_host(sample):
            assert theirs[2] == host.compute_bytes, sample
        offloaded_whole = memory.ranges(sample.placement)[0][0] == 0
        for index, ours in enumerate(devices):
            theirs = answer.device_bytes(index)
            exact_parts(theirs, ours)
            error = (ours.compute_bytes - theirs[2]) / MIB
            if offloaded_whole:
                assert error > -FULL_UNDER, (error, index, sample)
                self.full.append(error)
            else:
                # Attention weights of GLM-4.7 in 16 bits are 120 MiB each: two of them may lie side by side.
                allowed = max(PARTIAL_UNDER, 0.03 * theirs[2] / MIB) if sample.model == "glm-4.7" else PARTIAL_UNDER
                assert error > -allowed, (error, index, sample)
                self.partial.append((error, theirs[2] / MIB))

    def hold_medians(self) -> str:
        """Assert the medians; a line about all of them."""
        over = [error / max(size, 1.0) for error, size in self.partial if size > 0]
        median, median_over = statistics.median(map(abs, self.full)), statistics.median(over)
        assert median < FULL_MEDIAN
        assert median_over < PARTIAL_OVER
        return (
            f"compute, all offloaded: {len(self.full)} buffers, median {median:.3f} MiB, {min(self.full):.2f} to "
            f"{max(self.full):+.2f}; partial: {len(self.partial)} buffers, "
            f"{min(error for error, _ in self.partial):.2f} MiB at worst, median {median_over:+.1%}"
        )


def _is_exact_on_host(sample: Sample) -> bool:
    placement = sample.placement
    few = placement.n_outputs < _FEW_OUTPUTS
    tokens = _TOKENS_PER_OUTPUT_LARGE if sample.model == "glm-4.7" else _TOKENS_PER_OUTPUT
    return not few or placement.n_ubatch >= tokens * placement.n_outputs
