"""Computed speeds corrected by what was seen on this machine, and how far that can be trusted elsewhere.

A time is a part without context and a part that the context costs. Each is multiplied by the ratio of seen to computed
time of the nearest record: a measurement of this very configuration first, then whatever differs least. What differs
widens the range, because the ratio was not seen there; docs/rehearse.md lists by how much.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from glmplan.calibration import Calibration, PhaseRatios, Ratio, Source, SpeedPoint, SpeedRecord
from glmplan.errors import InputError
from glmplan.estimate import Basis
from glmplan.model import ModelProfile
from glmplan.placement import Placement
from glmplan.planner.least_squares import deviations_of_80_percent, fit
from glmplan.rehearsal import Phase

# Milliseconds of a computed time: without context, and what the context costs.
Parts = tuple[float, float]
Computed = tuple[float, Basis, float]

# Deviations in natural logarithms that are added where a configuration differs from the one that was seen.
_OTHER_QUANT: Final = 0.15
_OTHER_THREADS: Final = 0.25
_OTHER_REPACK: Final = {Phase.DECODE: 0.07, Phase.PREFILL: 0.25}
_OTHER_CONTEXT: Final = 0.3  # another cache type, or flash attention the other way round: other kernels
_OTHER_LOADING: Final = 0.05
_PER_BATCH_DOUBLING: Final = 0.1
_PER_DEPTH_DOUBLING: Final = 0.1
_PER_HOST_SHARE: Final = 0.5
_PER_SLOT_DOUBLING: Final = 0.1
_UNKNOWN_CONTEXT: Final = 0.3  # every point was at about the same depth
# The same configuration on another day.
_OF_DAYS: Final = 0.03
_LEAST_CONTEXT: Final = 0.05
_WIDEST_RATIO: Final = 20.0
# A depth this near to a measured one is that one: what the context between them costs is added.
_NEAR_SHARE: Final = 0.1
_MANY: Final = 10_000


def calibration_of(
    record: SpeedRecord, parts: Callable[[Phase, float], Parts], host_share: float
) -> Calibration | None:
    """What a record says of the speed model; None when it has no usable points.

    Args:
        record: the speeds seen.
        parts: computed milliseconds of the record's configuration at a depth, uncalibrated.
        host_share: part of a token's computed time spent in main memory beside GPUs.
    """
    decode = _ratios(record.decode, lambda depth: parts(Phase.DECODE, depth))
    prefill = _ratios(record.prefill, lambda depth: parts(Phase.PREFILL, depth))
    if decode is None or prefill is None:
        return None
    return Calibration(record=record, decode=decode, prefill=prefill, host_share=host_share)


def _ratios(points: Sequence[SpeedPoint], parts: Callable[[float], Parts]) -> PhaseRatios | None:
    """Least squares of seen = weights x computed weights + context x computed context."""
    usable = [point for point in points if point.ms > 0 and point.deviation > 0]
    if not usable:
        return None
    rows = [list(parts(point.depth_tokens)) for point in usable]
    errors = [point.ms * point.deviation for point in usable]
    if len(usable) > 1:
        try:
            solved = fit(rows, [point.ms for point in usable], errors)
        except InputError:
            pass
        else:
            found = [Ratio(value=value, deviation=solved.standard_error(i) / value if value > 0 else 0.0)
                     for i, value in enumerate(solved.coefficients)]  # fmt: skip
            if all(1 / _WIDEST_RATIO < ratio.value < _WIDEST_RATIO for ratio in found):
                weights, context = found
                return PhaseRatios(
                    weights=replace(weights, deviation=max(weights.deviation, usable[0].deviation)),
                    context=replace(context, deviation=max(context.deviation, _LEAST_CONTEXT)),
                )
    first = usable[0]
    ratio = Ratio(value=first.ms / sum(rows[0]), deviation=first.deviation)
    return PhaseRatios(weights=ratio, context=replace(ratio, deviation=math.hypot(ratio.deviation, _UNKNOWN_CONTEXT)))


class Calibrator:
    """The calibrations of one model on one machine."""

    def __init__(self, model: ModelProfile, calibrations: Sequence[Calibration]) -> None:
        """Keep those of the same model and number of layers, of whatever quantisation."""
        n_main = model.n_layer - model.n_nextn_layers
        self._quantization = model.quantization.lower()
        self._known = [c for c in calibrations if (c.record.model, c.record.n_layer) == (model.name, n_main)]

    def __bool__(self) -> bool:
        return bool(self._known)

    def corrected(
        self,
        phase: Phase,
        placement: Placement,
        parts: Parts,
        *,
        depth_tokens: float,
        host_share: float,
        n_busy: int = 1,
    ) -> Computed:
        """Milliseconds, basis and the factor that spans the range.

        Args:
            phase: decode or prefill.
            placement: the configuration asked about.
            parts: its computed milliseconds, without context and what the context costs.
            depth_tokens: mean depth.
            host_share: part of a decoded token's computed time spent in main memory beside GPUs.
            n_busy: requests at once.
        """
        exact = self._measured(phase, placement, parts, depth_tokens) if n_busy == 1 else None
        if exact is not None:
            return exact
        tried = [self._scaled(c, phase, placement, parts, depth_tokens, host_share, n_busy) for c in self._known]
        value, deviation = min(tried, key=lambda found: found[1])
        return value, Basis.CALIBRATED, _spread(deviation)

    def nearest(self, placement: Placement, depth_tokens: float, host_share: float) -> Calibration:
        """The record that a decode speed of `placement` rests on."""
        same = [c for c in self._known if self._is_same(c.record, placement) and _near(c.record.decode, depth_tokens)]
        if same:
            return same[0]
        return min(
            self._known,
            key=lambda c: self._scaled(c, Phase.DECODE, placement, (1.0, 1.0), depth_tokens, host_share, 1)[1],
        )

    def differences(self, found: Calibration, placement: Placement, depth_tokens: float) -> Iterator[str]:
        """What a configuration has that the record did not have, in words."""
        seen = found.record.placement
        if not self._is_same_quant(found.record):
            yield f"of {found.record.quantization}"
        if placement.flash_attn != seen.flash_attn:
            yield f"with flash attention {seen.flash_attn}"
        if placement.cache_type_k != seen.cache_type_k:
            yield f"with a {seen.cache_type_k} cache"
        if placement.repack != seen.repack:
            yield f"with repacking {'on' if seen.repack else 'off'}"
        if placement.n_threads != seen.n_threads:
            yield f"with {seen.n_threads} threads"
        if placement.n_ubatch != seen.n_ubatch:
            yield f"with prompt batches of {seen.n_ubatch}"
        if depth_tokens > found.record.deepest_tokens * (1 + _NEAR_SHARE):
            yield f"at most {found.record.deepest_tokens:.0f} tokens deep"

    def _measured(self, phase: Phase, placement: Placement, parts: Parts, depth: float) -> Computed | None:
        """The time at the nearest depth at which this very configuration was measured."""
        for calibration in self._known:
            record = calibration.record
            points = record.decode if phase is Phase.DECODE else record.prefill
            point = _near(points, depth) if self._is_same(record, placement) else None
            if point is None:
                continue
            ratios = calibration.decode if phase is Phase.DECODE else calibration.prefill
            per_token = ratios.context.value * parts[1] / depth if depth else 0.0
            value = max(point.ms / 2, point.ms + per_token * (depth - point.depth_tokens))
            return value, Basis.MEASURED, _spread(math.hypot(point.deviation, _OF_DAYS))
        return None

    def _is_same(self, record: SpeedRecord, placement: Placement) -> bool:
        return (
            record.source is Source.MEASUREMENT
            and self._is_same_quant(record)
            and _comparable(record.placement) == _comparable(placement)
        )

    def _is_same_quant(self, record: SpeedRecord) -> bool:
        return record.quantization.lower() == self._quantization

    def _scaled(
        self,
        calibration: Calibration,
        phase: Phase,
        placement: Placement,
        parts: Parts,
        depth: float,
        host_share: float,
        n_busy: int,
    ) -> tuple[float, float]:
        """Milliseconds and their deviation by one calibration."""
        ratios = calibration.decode if phase is Phase.DECODE else calibration.prefill
        seen = calibration.record.placement
        same_kernels = (seen.flash_attn, seen.cache_type_k) == (placement.flash_attn, placement.cache_type_k)
        weights = parts[0] * ratios.weights.value
        context = parts[1] * (ratios.context.value if same_kernels else 1.0)
        total = weights + context
        of_weights = math.hypot(
            ratios.weights.deviation,
            _OF_DAYS,
            *self._unlike(calibration, phase, placement, host_share),
            _PER_SLOT_DOUBLING * math.log2(n_busy),
        )
        deepest = max(calibration.record.deepest_tokens, 1.0)
        of_context = math.hypot(
            ratios.context.deviation if same_kernels else _OTHER_CONTEXT,
            _OTHER_THREADS if placement.n_threads != seen.n_threads else 0.0,
            _PER_DEPTH_DOUBLING * max(0.0, math.log2(max(depth, 1.0) / deepest)),
            _PER_SLOT_DOUBLING * math.log2(n_busy),
        )
        return total, math.hypot(weights / total * of_weights, context / total * of_context)

    def _unlike(
        self, calibration: Calibration, phase: Phase, placement: Placement, host_share: float
    ) -> Iterator[float]:
        """Deviations of what is not the context's."""
        seen = calibration.record.placement
        if not self._is_same_quant(calibration.record):
            yield _OTHER_QUANT
        threads = (seen.n_threads, placement.n_threads)
        if phase is Phase.PREFILL:
            threads = (seen.n_threads_batch, placement.n_threads_batch)
            yield _PER_BATCH_DOUBLING * abs(math.log2(placement.n_ubatch / seen.n_ubatch))
        if threads[0] != threads[1]:
            yield _OTHER_THREADS
        if seen.repack != placement.repack:
            yield _OTHER_REPACK[phase]
        if seen.load_mode != placement.load_mode:
            yield _OTHER_LOADING
        yield _PER_HOST_SHARE * abs(host_share - calibration.host_share)


def _near(points: Sequence[SpeedPoint], depth: float) -> SpeedPoint | None:
    """The point at about that depth; a prompt of usual length belongs to the depth it begins at."""
    if not points:
        return None
    nearest = min(points, key=lambda point: abs(point.depth_tokens - depth))
    return nearest if abs(nearest.depth_tokens - depth) <= max(_USUAL_PROMPT, _NEAR_SHARE * depth) else None


# Tokens of prompt and answer that a benchmark puts behind the depth it names.
_USUAL_PROMPT: Final = 768.0


def _comparable(placement: Placement) -> Placement:
    """What a speed depends on: neither the build's name (the machine's fingerprint has it) nor unused room."""
    return replace(placement, engine_build=None, cache_ram_bytes=0, n_ctx=0, n_outputs=1, n_parallel=1)


def _spread(deviation: float) -> float:
    return math.exp(deviations_of_80_percent(_MANY) * deviation)
