"""Two records side by side: points of both paired, and whether a difference is more than their spread."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Final

from glmplan.benchmark import BenchComparison, ComparedRecord, ComparedSpeed
from glmplan.estimate import Estimate
from glmplan.launchers.bench import Point
from glmplan.launchers.bench_report import aggregate_decode, aggregate_prefill, measured
from glmplan.measurement import Measurement, SpeedSample
from glmplan.placement import Placement

# Of two runs of the same thing with three samples each, 1.4 % differ by more than both spreads together (normal noise).
_LEAST_SAMPLES: Final = 3
# Prompts made of words miss a depth by a little; depths of one benchmark lie further apart.
_SAME_DEPTH_SHARE: Final = 0.1
_SHOWN: Final = 60
_METRICS: Final[tuple[tuple[str, Callable[[SpeedSample], float]], ...]] = (
    ("prefill_tokens_per_s", aggregate_prefill),
    ("decode_tokens_per_s", aggregate_decode),
)


def compare(name_a: str, a: Measurement, name_b: str, b: Measurement) -> BenchComparison:
    """Every point that both records have, and what else differs between them."""
    of_a, of_b = points_of(a.samples), points_of(b.samples)
    pairs = [(one, other) for one in of_a if (other := _same(one, of_b)) is not None]
    paired = [id(point) for pair in pairs for point in pair]
    return BenchComparison(
        a=_described(name_a, a),
        b=_described(name_b, b),
        differences=tuple(_differences(a, b)),
        speeds=tuple(speed for pair in pairs for speed in _speeds(*pair)),
        only_in_a=tuple(spelled(point) for point in of_a if id(point) not in paired),
        only_in_b=tuple(spelled(point) for point in of_b if id(point) not in paired),
    )


def points_of(samples: Sequence[SpeedSample]) -> tuple[Point, ...]:
    """Samples of a record by point, in their order: a record keeps them point after point."""
    groups: list[list[SpeedSample]] = []
    for sample in samples:
        if groups and _alike(groups[-1][0], sample):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    return tuple(
        Point(
            depth_tokens=max(sample.depth_tokens for sample in group),
            n_streams=group[0].n_streams,
            samples=tuple(group),
        )
        for group in groups
    )


def spelled(point: Point) -> str:
    """A point for a person."""
    streams = "" if point.n_streams == 1 else f", {point.n_streams} streams"
    return f"depth {point.depth_tokens}{streams}"


def _alike(one: SpeedSample, other: SpeedSample) -> bool:
    return one.n_streams == other.n_streams and _close(one.depth_tokens, other.depth_tokens)


def _close(one: int, other: int) -> bool:
    return abs(one - other) <= _SAME_DEPTH_SHARE * max(one, other)


def _same(point: Point, others: Sequence[Point]) -> Point | None:
    return next(
        (o for o in others if o.n_streams == point.n_streams and _close(o.depth_tokens, point.depth_tokens)), None
    )


def _speeds(one: Point, other: Point) -> Iterator[ComparedSpeed]:
    for metric, of in _METRICS:
        values = [[of(sample) for sample in point.samples[:: point.n_streams]] for point in (one, other)]
        a, b = (measured(found) for found in values)
        spread = None
        if min(map(len, values)) >= _LEAST_SAMPLES:
            spread = (_width(a) + _width(b)) / a.value
        ratio = b.value / a.value
        yield ComparedSpeed(
            depth_tokens=one.depth_tokens,
            n_streams=one.n_streams,
            metric=metric,
            a=a,
            b=b,
            ratio=ratio,
            spread_ratio=spread,
            exceeds_spread=None if spread is None else abs(ratio - 1) > spread,
        )


def _width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def _described(name: str, record: Measurement) -> ComparedRecord:
    return ComparedRecord(
        name=name,
        created_at=record.created_at,
        engine=record.engine,
        engine_version=record.engine_version,
        file=record.file.name if record.file else f"{record.model} {record.quantization}",
        synthetic=record.synthetic,
        machine_fingerprint=record.machine_fingerprint,
    )


def _differences(a: Measurement, b: Measurement) -> Iterator[str]:
    """What of both records is not the same: machine, engine, file, and every knob."""
    pairs = (
        ("machine", a.machine_fingerprint, b.machine_fingerprint),
        ("engine", f"{a.engine} {a.engine_version or ''}".strip(), f"{b.engine} {b.engine_version or ''}".strip()),
        ("model", f"{a.model} {a.quantization}", f"{b.model} {b.quantization}"),
        ("file bytes", a.file and a.file.n_bytes, b.file and b.file.n_bytes),
    )
    yield from (f"{name}: {one} and {other}" for name, one, other in pairs if one != other)
    if a.placement is not None and b.placement is not None:
        for name in (field.name for field in fields(Placement)):
            one, other = getattr(a.placement, name), getattr(b.placement, name)
            if one != other and name not in {"engine", "engine_build"}:
                yield f"{name}: {_shown(one)} and {_shown(other)}"
    elif a.placement is not b.placement:
        yield "the configuration of one of them is not recorded"


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
