"""Samples to a report: what was measured of what, summarised by point."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from glmplan import __version__
from glmplan.benchmark import BenchReport, BenchSettings, LeftOut, PointSummary, Quantiles
from glmplan.estimate import Basis, Estimate
from glmplan.launchers.bench import Point
from glmplan.measurement import EnergyMeter, MeasuredFile, Measurement, MemoryReport, Origin, SpeedSample
from glmplan.noun import noun
from glmplan.plan import Plan


@noun
class Subject:
    """What is measured; `None` where a foreign server does not say, `plan` where glmplan has not started it."""

    engine: str
    engine_version: str | None
    model: str
    quantization: str
    synthetic: bool
    machine_fingerprint: str
    memory: MemoryReport | None = None
    load_ms: float | None = None
    resident_bytes: int | None = None
    plan: Plan | None = None
    energy: EnergyMeter | None = None


def report(
    url: str, settings: BenchSettings, points: Sequence[Point], subject: Subject, *, left_out: Sequence[LeftOut] = ()
) -> BenchReport:
    """Samples and what they were taken of, with a summary by point."""
    return BenchReport(
        url=url,
        settings=settings,
        summary=tuple(summarise(point.samples, point.depth_tokens, point.n_streams) for point in points),
        left_out=tuple(left_out),
        measurement=measurement(subject, [sample for point in points for sample in point.samples]),
    )


def measurement(subject: Subject, samples: Sequence[SpeedSample], *, origin: Origin = Origin.BENCH) -> Measurement:
    """A record for the history, of now."""
    plan = subject.plan
    return Measurement(
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        glmplan_version=__version__,
        engine=subject.engine,
        engine_version=subject.engine_version,
        model=subject.model,
        quantization=subject.quantization,
        synthetic=subject.synthetic,
        machine_fingerprint=subject.machine_fingerprint,
        samples=tuple(samples),
        memory=subject.memory,
        load_ms=subject.load_ms,
        resident_bytes=subject.resident_bytes,
        origin=origin,
        machine=plan.machine if plan else None,
        file=MeasuredFile(name=Path(plan.model.file).name, n_bytes=plan.model.file_bytes) if plan else None,
        n_layer=plan.model.n_layer if plan else None,
        placement=plan.placement if plan else None,
        forecast=plan.speed if plan else None,
        energy=subject.energy,
    )


def summarise(samples: Sequence[SpeedSample], depth: int, n_streams: int = 1) -> PointSummary:
    """Median and range of the samples of one point."""
    together = samples[::n_streams]  # what all streams reached is told by each of them
    return PointSummary(
        depth_tokens=depth,
        n_streams=n_streams,
        samples=len(samples),
        prefill_tokens_per_s=measured([sample.prefill_tokens_per_s for sample in samples]),
        decode_tokens_per_s=measured([sample.decode_tokens_per_s for sample in samples]),
        aggregate_prefill_tokens_per_s=measured([aggregate_prefill(sample) for sample in together]),
        aggregate_decode_tokens_per_s=measured([aggregate_decode(sample) for sample in together]),
        ttft_ms=_quantiles([sample.ttft_ms for sample in samples]),
        tpot_ms=_quantiles([sample.tpot_ms for sample in samples]),
        joules_per_prompt_token=_known(samples, lambda one: _share(one.prefill_joules, one.prompt_tokens)),
        joules_per_output_token=_known(samples, lambda one: _share(one.decode_joules, one.output_tokens - 1)),
    )


def aggregate_prefill(sample: SpeedSample) -> float:
    """Prefill of all streams of a sample together; of older records, which have one stream, its own."""
    return sample.aggregate_prefill_tokens_per_s or sample.prefill_tokens_per_s


def aggregate_decode(sample: SpeedSample) -> float:
    """Decode of all streams of a sample together; of older records, which have one stream, its own."""
    return sample.aggregate_decode_tokens_per_s or sample.decode_tokens_per_s


def quantile(values: Sequence[float], share: float) -> float:
    """Linear interpolation between the closest ranks (numpy's default)."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * share
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def measured(values: Sequence[float]) -> Estimate:
    """Median, lowest and highest of what was measured."""
    return Estimate(value=quantile(values, 0.5), low=min(values), high=max(values), basis=Basis.MEASURED)


def _quantiles(values: Sequence[float]) -> Quantiles:
    return Quantiles(p50=quantile(values, 0.5), p95=quantile(values, 0.95))


def _share(joules: float | None, tokens: int) -> float | None:
    return None if joules is None or tokens < 1 else joules / tokens


def _known(samples: Sequence[SpeedSample], of: Callable[[SpeedSample], float | None]) -> Estimate | None:
    found = [value for sample in samples if (value := of(sample)) is not None]
    return measured(found) if found else None
