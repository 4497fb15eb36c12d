"""What plans know of this machine: rehearsals and measurements, as lines of files, become calibrations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmplan.calibration import Source
from glmplan.commands.calibrating import calibrated_speed
from glmplan.commands.planned_machine import fingerprint_of
from glmplan.commands.situation import Situation
from glmplan.engine import Engine, EngineKind
from glmplan.jsonio import to_jsonable
from glmplan.paths import data_folder
from glmplan.placement import Placement
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import spaces_of
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.speed_classes import machine_speed
from glmplan.speed_class import MachineSpeed

ENGINE = Engine(kind=EngineKind.XLLAMACPP, path="python", version="2026.10.11549", backends=("cpu",))


def here(*, is_here: bool = True, engine: Engine | None = ENGINE) -> Situation:
    machine = resolve_machine("cpu:32GiB", None)
    return Situation(machine=machine, engine=engine, notes=(), use_gpus=True, is_here=is_here)


def placement() -> Placement:
    memory = MemoryModel(catalog_profile("q4_K_M"), spaces_of(here().machine))
    return base_placement(memory, engine=EngineKind.XLLAMACPP, n_ctx=32768, cache="f16", n_parallel=1, n_threads=2)


def rehearsal(**changes: Any) -> dict[str, Any]:
    def rate(value: float) -> dict[str, Any]:
        return {"value": value, "low": value / 1.1, "high": value * 1.1, "basis": "calibrated"}

    speeds = [
        {"depth_tokens": depth, "decode_tokens_per_s": rate(5 / (1 + depth / 4096)),
         "prefill_tokens_per_s": rate(20 / (1 + depth / 4096)), "beyond": depth > 8192}
        for depth in (0, 4096, 8192, 16384)
    ]  # fmt: skip
    return {
        "created_at": "2026-11-26T09:00:00+00:00", "model": "glm-4.7-flash", "quantization": "q4_K_M", "n_layer": 47,
        "placement": to_jsonable(placement()), "speeds": speeds, "decode": {"deepest_tokens": 8200.0}, **changes,
    }  # fmt: skip


def measurement(**changes: Any) -> dict[str, Any]:
    sample = {"prompt_tokens": 512, "output_tokens": 64, "prefill_tokens_per_s": 15.0, "decode_tokens_per_s": 4.0}
    samples = [{**sample, "depth_tokens": depth} for depth in (0, 0, 0, 4096, 4096)]
    return {
        "created_at": "2026-11-26T10:00:00Z", "model": "glm-4.7-flash", "quantization": "q4_K_M", "n_layer": 47,
        "placement": to_jsonable(placement()), "samples": samples, **changes,
    }  # fmt: skip


def keep(kind: str, *lines: object, at: Situation | None = None) -> None:
    path = data_folder() / kind / f"{fingerprint_of(at or here())}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def speed(at: Situation | None = None) -> MachineSpeed:
    at = at or here()
    return calibrated_speed(machine_speed(at.machine, ()), at)


def test_nothing_is_known_of_a_machine_at_first() -> None:
    assert speed() == machine_speed(here().machine, ())


def test_a_rehearsal_calibrates_by_the_depths_it_reached() -> None:
    keep("rehearsals", rehearsal())
    (found,) = speed().calibrations
    assert found.record.source is Source.REHEARSAL
    assert [point.depth_tokens for point in found.record.decode] == [0, 4096, 8192]
    assert found.record.placement == placement()
    assert found.record.decode[0].ms == pytest.approx(200)
    assert found.record.decode[0].deviation == pytest.approx(0.0744, abs=0.001)


def test_a_measurement_calibrates_by_medians_at_the_depths_it_really_had() -> None:
    keep("measurements", measurement())
    (found,) = speed().calibrations
    assert found.record.source is Source.MEASUREMENT
    assert [point.depth_tokens for point in found.record.decode] == [544, 4640]
    assert [point.depth_tokens for point in found.record.prefill] == [256, 4352]


def test_the_newest_of_every_configuration_counts() -> None:
    other = {**rehearsal()["placement"], "flash_attn": "off"}
    longer = {**rehearsal()["placement"], "n_ctx": 65536}
    keep("rehearsals", rehearsal(created_at="2026-11-01"), rehearsal(created_at="2026-11-03", placement=longer),
         rehearsal(created_at="2026-11-02", placement=other))  # fmt: skip
    assert [c.record.taken_at for c in speed().calibrations] == ["2026-11-03", "2026-11-02"]


BROKEN = {
    "not JSON": "{half a line",
    "not an object": "[1, 2]",
    "another version's": {"schema": "glmplan/rehearsal/9"},
    "an unknown knob": rehearsal(placement={**to_jsonable(placement()), "warp": 9}),
    "an unknown engine": rehearsal(placement={**to_jsonable(placement()), "engine": "abacus"}),
    "a speed of zero": rehearsal(speeds=[{**rehearsal()["speeds"][0], "decode_tokens_per_s": {"value": 0, "high": 0}}]),
    "an unknown quantisation": rehearsal(quantization="q9_Z"),
    "no speeds": rehearsal(speeds=[]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_line_that_cannot_be_understood_is_left_out(name: str) -> None:
    keep("rehearsals", BROKEN[name], rehearsal(created_at="2026-11-25"))
    assert [c.record.taken_at for c in speed().calibrations] == ["2026-11-25"]


@pytest.mark.parametrize("change", [{"placement": None}, {"n_layer": None}, {"samples": []}])
def test_measurements_of_nobody_knows_what_are_left_out(change: dict[str, Any]) -> None:
    keep("measurements", measurement(**change))
    assert speed().calibrations == ()


def test_several_requests_at_once_are_no_speed_of_one() -> None:
    several = [{**sample, "n_streams": 4} for sample in measurement()["samples"]]
    keep("measurements", measurement(samples=several))
    assert speed().calibrations == ()


def test_another_machine_or_build_knows_nothing_of_it() -> None:
    keep("rehearsals", rehearsal())
    assert speed(here(is_here=False)).calibrations == ()
    assert speed(here(engine=None)).calibrations == ()
    assert speed(here(engine=replace(ENGINE, version="2026.11.1"))).calibrations == ()


def test_a_folder_in_place_of_the_file_is_no_trouble() -> None:
    Path(data_folder() / "rehearsals" / f"{fingerprint_of(here())}.jsonl").mkdir(parents=True)
    assert speed().calibrations == ()
