"""What was measured and rehearsed on this machine, for the speed model: read without ceremony, because every plan does.

The lines are glmplan's own. One that cannot be understood (another version's, a broken one) is left out: a plan does
not fail for it, it only knows less.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from glmplan.calibration import Calibration, Source, SpeedPoint, SpeedRecord
from glmplan.engine import EngineKind
from glmplan.placement import FlashAttention, Placement, TensorOverride

if TYPE_CHECKING:
    from glmplan.commands.situation import Situation
    from glmplan.speed_class import MachineSpeed

_DEVIATIONS: Final = 1.2816
# Samples of one run agree better with each other than with tomorrow's.
_LEAST_DEVIATION: Final = 0.02
_KEPT: Final = 8


def calibrated_speed(speed: "MachineSpeed", here: "Situation") -> "MachineSpeed":
    """`speed` with what was seen on this machine with this engine build; unchanged for another machine."""
    if not here.is_here or here.engine is None:
        return speed
    records = _kept(sorted(_records(here), key=lambda record: record.taken_at, reverse=True))
    found = tuple(calibration for record in records for calibration in _calibrations(record, here, speed))
    return replace(speed, calibrations=found) if found else speed


def _records(here: "Situation") -> Iterator[SpeedRecord]:
    from glmplan.commands.planned_machine import fingerprint_of
    from glmplan.paths import data_folder

    name = f"{fingerprint_of(here)}.jsonl"
    yield from _understood(data_folder() / "rehearsals" / name, _rehearsal)
    yield from _understood(data_folder() / "measurements" / name, _measurement)


def _understood(path: Path, decode: Callable[[Mapping[str, Any]], SpeedRecord | None]) -> Iterator[SpeedRecord]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        try:
            record = decode(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
            continue
        if record is not None:
            yield record


def _kept(records: Iterable[SpeedRecord]) -> list[SpeedRecord]:
    """The newest of every configuration, a few in all."""
    kept: dict[tuple[object, ...], SpeedRecord] = {}
    for record in records:
        knobs = replace(record.placement, n_ctx=0, cache_ram_bytes=0)
        kept.setdefault((record.source, record.model, record.quantization, record.n_layer, knobs), record)
    return list(kept.values())[:_KEPT]


def _calibrations(record: SpeedRecord, here: "Situation", speed: "MachineSpeed") -> Iterator[Calibration]:
    """What a record says of the uncalibrated speed model, by the catalog's file of its quantisation."""
    from glmplan.commands.situation import without_gpus
    from glmplan.errors import GlmplanError
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.spaces import spaces_of
    from glmplan.planner.speed import SpeedModel
    from glmplan.profiles.recipes import catalog_profile

    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    try:
        model = catalog_profile(record.quantization, model=record.model, n_layer=record.n_layer)
        found = SpeedModel(MemoryModel(model, spaces_of(machine)), speed).calibration(record)
    except GlmplanError:
        return
    if found is not None:
        yield found


def _rehearsal(line: Mapping[str, Any]) -> SpeedRecord | None:
    """None for one that reached no depth at all."""
    placement = _placement(line["placement"])
    batch = min(placement.n_ubatch, placement.n_batch)
    rows = [row for row in line["speeds"] if not row["beyond"]]
    if not rows:
        return None
    return SpeedRecord(
        source=Source.REHEARSAL,
        taken_at=str(line["created_at"]),
        model=line["model"],
        quantization=line["quantization"],
        n_layer=int(line["n_layer"]),
        placement=placement,
        decode=tuple(_extrapolated(row["depth_tokens"], row["decode_tokens_per_s"]) for row in rows),
        prefill=tuple(_extrapolated(row["depth_tokens"] + batch / 2, row["prefill_tokens_per_s"]) for row in rows),
        deepest_tokens=float(line["decode"]["deepest_tokens"]),
    )


def _extrapolated(depth: float, rate: Mapping[str, float]) -> SpeedPoint:
    value = rate["value"]
    deviation = math.log(rate["high"] / value) / _DEVIATIONS
    return SpeedPoint(depth_tokens=depth, ms=1000 / value, deviation=max(deviation, _LEAST_DEVIATION))


def _measurement(line: Mapping[str, Any]) -> SpeedRecord | None:
    """None for what no plan of ours was behind, or more than one request at a time."""
    samples = [sample for sample in line["samples"] if sample.get("n_streams", 1) == 1]
    if not samples or line.get("placement") is None or line.get("n_layer") is None:
        return None
    decode = _points(
        (s["depth_tokens"] + s["prompt_tokens"] + s["output_tokens"] / 2, s["decode_tokens_per_s"]) for s in samples
    )
    prefill = _points((s["depth_tokens"] + s["prompt_tokens"] / 2, s["prefill_tokens_per_s"]) for s in samples)
    return SpeedRecord(
        source=Source.MEASUREMENT,
        taken_at=str(line["created_at"]),
        model=line["model"],
        quantization=line["quantization"],
        n_layer=int(line["n_layer"]),
        placement=_placement(line["placement"]),
        decode=decode,
        prefill=prefill,
        deepest_tokens=max(point.depth_tokens for point in decode),
    )


def _points(pairs: Iterable[tuple[float, float]]) -> tuple[SpeedPoint, ...]:
    """Median times by depth, with the error of that median."""
    from glmplan.planner.least_squares import median

    by_depth: dict[float, list[float]] = {}
    for depth, rate in pairs:
        by_depth.setdefault(depth, []).append(1000 / rate)
    return tuple(
        SpeedPoint(depth_tokens=depth, ms=median(times), deviation=_deviation(times))
        for depth, times in sorted(by_depth.items())
    )


def _deviation(times: Sequence[float]) -> float:
    from glmplan.planner.least_squares import MEDIAN_EFFICIENCY, relative_noise

    noise, _ = relative_noise([times])
    single = 0.1 if noise is None else noise
    return max(_LEAST_DEVIATION, MEDIAN_EFFICIENCY * single / math.sqrt(len(times)))


def _placement(fields: Mapping[str, Any]) -> Placement:
    known: dict[str, Any] = {
        **fields,
        "engine": EngineKind(fields["engine"]),
        "flash_attn": FlashAttention(fields["flash_attn"]),
        "tensor_split": tuple(fields["tensor_split"]),
        "override_tensor": tuple(TensorOverride(**override) for override in fields["override_tensor"]),
    }
    return Placement(**known)
