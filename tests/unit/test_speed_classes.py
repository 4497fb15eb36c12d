"""Which factors a device gets."""

import math
from dataclasses import fields, replace

import pytest

from glmplan.estimate import Basis
from glmplan.machine import Machine, PcieLink
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.device_rows import all_devices
from glmplan.profiles.speed_classes import gpu_class, machine_speed, usable_flops_per_s
from glmplan.profiles.store import shipped
from glmplan.speed_class import SpeedFactors


def machine(on: str) -> Machine:
    return resolve_machine(on, None)


@pytest.mark.parametrize(
    ("on", "runtime", "expected"),
    [
        ("rtx-4090", "llama.cpp", "cuda-ada"),
        ("rtx-3090", "ollama", "cuda-ampere"),
        ("rtx-5070-ti", "llama.cpp", "cuda-blackwell"),
        ("nvidia-gb10", "llama.cpp", "cuda-unified"),
        ("nvidia-h100-sxm", "vllm", "cuda-datacenter"),
        ("gpu:12GiB", "llama.cpp", "cuda"),
        ("apple-m1-max-32c", "llama.cpp", "metal-m1"),
        ("apple-m4-max:64", "llama.cpp", "metal-m3"),
        ("apple-m4-max:64", "mlx-lm", "mlx-m3"),
        ("apple-m5-max-40c", "mlx-lm", "mlx-m5"),
    ],
)
def test_class_of_a_device(on: str, runtime: str, expected: str) -> None:
    assert gpu_class(machine(on).gpus[0], runtime=runtime) == expected


def test_every_catalog_gpu_has_a_class_with_all_factors() -> None:
    classes = shipped("speeds", "classes.yaml")["classes"]
    names = {field.name for field in fields(SpeedFactors)}
    gpus = [row for row in all_devices() if not row.id.startswith("cpu-")]
    assert len(gpus) > 100
    for row in gpus:
        gpu = machine(f"{row.id}:{row.memory_options_bytes[0] / 2**30:g}").gpus[0]
        for runtime in ("llama.cpp", "mlx-lm"):
            facts = classes[gpu_class(gpu, runtime=runtime)]
            assert set(facts["factors"]) == names
            assert all(value > 0 and 0 < deviation < 1 for value, deviation in facts["factors"].values())


def test_workstation_cards_are_rated_as_their_geforce_sisters() -> None:
    """The same AD102 chip: vendors print one table with fp16 accumulation, the other with fp32 at half rate."""
    geforce, workstation = (machine(on).gpus[0] for on in ("rtx-4090", "nvidia-rtx-6000-ada-generation"))
    first, second = usable_flops_per_s(geforce), usable_flops_per_s(workstation)
    assert first is not None
    assert second is not None
    assert math.isclose(second, first, rel_tol=0.15)


def test_unknown_peaks_are_assumed_and_widen() -> None:
    here = machine("rtx-4090")
    blind = replace(here.gpus[0], bandwidth_bytes_per_s=None, peak_flops_per_s=None)
    known, unknown = (machine_speed(here, (gpu,)).gpus[0] for gpu in (here.gpus[0], blind))
    assert unknown.basis_decode is Basis.ASSUMED
    assert unknown.least_spread_decode == 1.5 * known.least_spread_decode
    assert 0 < unknown.bandwidth_bytes_per_s < known.bandwidth_bytes_per_s


def test_a_measured_copy_is_less_than_the_peak() -> None:
    here = machine("cpu:32GiB")
    measured = replace(here.memory, bandwidth_bytes_per_s=25_000_000_000, bandwidth_source="measured copy")
    rated = replace(measured, bandwidth_source="dmidecode")
    peaks = [machine_speed(replace(here, memory=memory), ()).host for memory in (measured, rated)]
    assert [round(host.bandwidth_bytes_per_s / 1e9, 2) for host in peaks] == [31.25, 25.0]
    assert peaks[1].basis_decode is Basis.CALIBRATED


@pytest.mark.parametrize(
    ("link", "gb_s"), [(PcieLink(generation=4, width=16), 31.5), (PcieLink(generation=3, width=8), 7.88), (None, 25.0)]
)
def test_staging_follows_the_slot(link: PcieLink | None, gb_s: float) -> None:
    here = machine("rtx-3090")
    memory = replace(here.memory, bandwidth_bytes_per_s=10**13, bandwidth_source="dmidecode")
    hybrid = machine_speed(replace(here, memory=memory), (replace(here.gpus[0], pcie=link),)).hybrid
    assert math.isclose(hybrid.mapped_bytes_per_s, 0.7 * gb_s * 1e9, rel_tol=0.01)
    assert math.isclose(hybrid.pinned_bytes_per_s, 0.65 * gb_s * 1e9, rel_tol=0.01)


def test_all_rules_name_classes_that_exist() -> None:
    rules, classes = shipped("speeds", "hardware.yaml"), shipped("speeds", "classes.yaml")["classes"]
    named = {*rules["nvidia"]["classes"].values(), rules["nvidia"]["unknown"], rules["other"]}
    named |= {f"{runtime}-{chip}" for chip in rules["apple"]["classes"].values() for runtime in ("metal", "mlx")}
    assert named <= set(classes)
