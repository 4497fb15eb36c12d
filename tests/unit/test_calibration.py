"""Speeds seen on this machine: how they correct the speed model, for what, and how far they are trusted elsewhere."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from glmplan.calibration import Calibration, Source, SpeedPoint, SpeedRecord
from glmplan.engine import EngineKind
from glmplan.estimate import Basis, Estimate
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload
from glmplan.planner.spaces import planned_gpus, spaces_of
from glmplan.planner.speed import SpeedModel
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.speed_classes import machine_speed
from glmplan.speed_class import MachineSpeed


class Desk:
    """A machine with a quantisation of the model on it, and what was seen there."""

    def __init__(self, on: str, quant: str = "q4_K_M", seen: tuple[Calibration, ...] = ()) -> None:
        machine = resolve_machine(on, None)
        self.memory = MemoryModel(catalog_profile(quant), spaces_of(machine))
        self.machine: MachineSpeed = machine_speed(machine, tuple(gpu for gpu, _ in planned_gpus(machine)))
        self.speed = SpeedModel(self.memory, replace(self.machine, calibrations=seen))
        base = base_placement(
            self.memory, engine=EngineKind.LLAMA_SERVER, n_ctx=32768, cache="f16", n_parallel=1, n_threads=2
        )
        placement = best_offload(self.memory, base)
        assert placement is not None
        self.placement: Placement = placement

    def decode(self, depth: float, **knobs: object) -> Estimate:
        return self.speed.decode(replace(self.placement, **knobs), depth_tokens=depth)  # type: ignore[arg-type]

    def prefill(self, depth: float, **knobs: object) -> Estimate:
        return self.speed.prefill(
            replace(self.placement, **knobs),  # type: ignore[arg-type]
            mean_depth_tokens=depth,
            prompt_tokens=512,
        )

    def record(self, source: Source, weights: float, context: float, deviation: float = 0.04) -> SpeedRecord:
        """What would be seen if everything took `weights` times as long, and the context `context` times."""

        def point(depth: float, seconds_of: Callable[[float], Estimate]) -> SpeedPoint:
            bare, whole = 1000 / seconds_of(0.0).value, 1000 / seconds_of(depth).value
            return SpeedPoint(depth_tokens=depth, ms=weights * bare + context * (whole - bare), deviation=deviation)

        return SpeedRecord(
            source=source,
            taken_at="2026-11-26T10:00:00Z",
            model="glm-4.7-flash",
            quantization=self.memory.model.quantization,
            n_layer=47,
            placement=self.placement,
            decode=tuple(point(depth, self.decode) for depth in (256.0, 4096.0, 8192.0)),
            prefill=tuple(point(depth, self.prefill) for depth in (256.0, 4096.0, 8192.0)),
            deepest_tokens=8192.0,
        )


MACHINES = ("cpu:32GiB", "rtx-4090", "gpu:12GiB")


def seen_on(on: str, source: Source = Source.REHEARSAL, weights: float = 1.5, context: float = 0.7) -> Desk:
    plain = Desk(on)
    calibration = plain.speed.calibration(plain.record(source, weights, context))
    assert calibration is not None
    return Desk(on, seen=(calibration,))


def width(estimate: Estimate) -> float:
    return math.log(estimate.high / estimate.low)


@pytest.mark.parametrize("on", MACHINES)
@pytest.mark.parametrize("depth", [0.0, 2000.0, 8192.0])
def test_what_was_rehearsed_comes_back(on: str, depth: float) -> None:
    plain, seen = Desk(on), seen_on(on)
    for ask in (Desk.decode, Desk.prefill):
        bare, whole = 1000 / ask(plain, 0.0).value, 1000 / ask(plain, depth).value
        expected = 1.5 * bare + 0.7 * (whole - bare)
        assert math.isclose(1000 / ask(seen, depth).value, expected, rel_tol=0.01)
        assert ask(seen, depth).basis is Basis.CALIBRATED


@pytest.mark.parametrize("on", MACHINES)
def test_ranges_shrink_and_hold_what_was_seen(on: str) -> None:
    plain, seen = Desk(on), seen_on(on)
    for ask in (Desk.decode, Desk.prefill):
        assert width(ask(seen, 4096.0)) < width(ask(plain, 4096.0))
        assert width(ask(seen, 4096.0)) > 2 * 1.28 * 0.03


DIFFERENT: dict[str, dict[str, object]] = {
    "threads": {"n_threads": 1},
    "flash attention": {"flash_attn": FlashAttention.OFF},
    "cache": {"cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    "repacking": {"repack": True},
    "loading": {"use_mmap": False},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_whatever_differs_widens_the_range(name: str) -> None:
    seen = seen_on("cpu:32GiB")
    assert width(seen.decode(4096.0, **DIFFERENT[name])) > width(seen.decode(4096.0))


def test_other_prompt_batches_widen_the_range_of_prefill() -> None:
    seen = seen_on("cpu:32GiB")
    assert width(seen.prefill(4096.0, n_ubatch=128)) > width(seen.prefill(4096.0))


def test_deeper_than_seen_and_several_at_once_widen_the_range() -> None:
    seen = seen_on("cpu:32GiB")
    assert width(seen.decode(32768.0)) > width(seen.decode(8192.0))
    together = seen.speed.decode(seen.placement, depth_tokens=4096.0, n_busy=4)
    assert width(together) > width(seen.decode(4096.0))


def test_experts_elsewhere_than_rehearsed_widen_the_range() -> None:
    seen = seen_on("gpu:12GiB")
    assert width(seen.decode(4096.0, n_cpu_moe=47, override_tensor=())) > width(seen.decode(4096.0))


def test_another_quant_uses_the_ratio_with_a_wider_range() -> None:
    calibration = Desk("cpu:32GiB").speed.calibration(Desk("cpu:32GiB").record(Source.REHEARSAL, 1.5, 0.7))
    assert calibration is not None
    plain, seen = Desk("cpu:96GiB", "q8_0"), Desk("cpu:96GiB", "q8_0", seen=(calibration,))
    assert math.isclose(seen.decode(0.0).value, plain.decode(0.0).value / 1.5, rel_tol=0.01)
    assert width(seen.decode(0.0)) > width(seen_on("cpu:32GiB").decode(0.0))
    rests = seen.speed.rests_on(seen.placement, 4096)
    assert rests is not None
    assert "of q4_K_M" in rests


def test_other_models_and_cuts_say_nothing_of_this_one() -> None:
    plain = Desk("cpu:32GiB")
    record = plain.record(Source.REHEARSAL, 3.0, 3.0)
    for other in (replace(record, model="qwen3-30b-a3b"), replace(record, n_layer=4)):
        calibration = plain.speed.calibration(other)
        assert calibration is not None
        assert Desk("cpu:32GiB", seen=(calibration,)).decode(4096.0) == plain.decode(4096.0)


def test_a_measurement_of_this_very_configuration_comes_first() -> None:
    plain = Desk("cpu:32GiB")
    found = [
        plain.speed.calibration(plain.record(Source.REHEARSAL, 1.5, 1.5)),
        plain.speed.calibration(plain.record(Source.MEASUREMENT, 2.0, 2.0, deviation=0.02)),
    ]
    seen = Desk("cpu:32GiB", seen=tuple(c for c in found if c is not None))
    exact = seen.decode(4096.0)
    assert exact.basis is Basis.MEASURED
    assert math.isclose(exact.value, plain.decode(4096.0).value / 2, rel_tol=0.01)
    # Unused room is no other configuration; another context type is.
    assert seen.decode(4096.0, cache_ram_bytes=2**30).basis is Basis.MEASURED
    assert seen.decode(4096.0, flash_attn=FlashAttention.OFF).basis is Basis.CALIBRATED
    # Far from what was measured, the line through it is computed.
    assert seen.decode(30000.0).basis is Basis.CALIBRATED
    assert seen.speed.rests_on(seen.placement, 4096) == "the measurement of 2026-11-26"


def test_between_measured_depths_the_context_between_them_counts() -> None:
    seen = seen_on("cpu:32GiB", Source.MEASUREMENT, 1.5, 0.7)
    near = [seen.decode(depth) for depth in (3900.0, 4096.0, 4400.0)]
    assert all(estimate.basis is Basis.MEASURED for estimate in near)
    assert near[0].value > near[1].value > near[2].value


def test_one_point_gives_one_ratio_for_everything() -> None:
    plain = Desk("rtx-4090")
    record = plain.record(Source.MEASUREMENT, 1.25, 1.25)
    calibration = plain.speed.calibration(replace(record, decode=record.decode[:1], prefill=record.prefill[:1]))
    assert calibration is not None
    assert math.isclose(calibration.decode.weights.value, 1.25, rel_tol=0.01)
    assert calibration.decode.context.deviation > calibration.decode.weights.deviation


def test_without_points_nothing_is_said() -> None:
    plain = Desk("rtx-4090")
    record = replace(plain.record(Source.MEASUREMENT, 1.0, 1.0), prefill=())
    assert plain.speed.calibration(record) is None
    assert plain.speed.rests_on(plain.placement, 4096) is None


def test_nonsense_does_not_become_a_ratio_below_zero() -> None:
    plain = Desk("cpu:32GiB")
    record = plain.record(Source.REHEARSAL, 1.0, 1.0)
    falling = tuple(replace(point, ms=1000.0 - point.depth_tokens / 10) for point in record.decode)
    calibration = plain.speed.calibration(replace(record, decode=falling))
    assert calibration is not None
    assert calibration.decode.context.value > 0
    assert Desk("cpu:32GiB", seen=(calibration,)).decode(8192.0).value > 0
