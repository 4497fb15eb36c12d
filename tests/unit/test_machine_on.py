"""`--on`: every form of the contract, and what is said about those that are wrong."""

from pathlib import Path

import pytest

from glmplan.errors import InputError, ProfileError
from glmplan.jsonio import dumps
from glmplan.machine import Machine
from glmplan.profiles.catalog import resolve_machine
from glmplan.units import GIB, MIB

TAPES = Path(__file__).parents[1] / "tapes"


def sizes(machine: Machine) -> list[tuple[int | None, int | None]]:
    return [(gpu.memory_total_bytes, gpu.memory_usable_bytes) for gpu in machine.gpus]


def test_a_catalog_card_has_the_memory_its_driver_reports() -> None:
    machine = resolve_machine("rtx-4090", None)
    assert sizes(machine) == [(24564 * MIB, (24564 - 512) * MIB)]
    assert machine.gpus[0].bandwidth_bytes_per_s == 1_008_000_000_000
    assert machine.gpus[0].peak_flops_per_s == 165_200_000_000_000
    assert machine.gpus[0].compute_capability == "8.9"
    assert machine.source == "catalog: rtx-4090"


@pytest.mark.parametrize("typed", ["2x rtx-3090", "2xrtx-3090", "2 x rtx 3090", "rtx-3090, rtx-3090"])
def test_several_cards(typed: str) -> None:
    machine = resolve_machine(typed, "64GiB")
    assert [gpu.id for gpu in machine.gpus] == ["gpu0", "gpu1"]
    assert sizes(machine) == [(24 * GIB, 24 * GIB - 512 * MIB)] * 2
    assert machine.memory.total_bytes == 64 * GIB


def test_host_memory_is_stated_or_assumed_with_a_note() -> None:
    stated, assumed = resolve_machine("h200", "96GiB"), resolve_machine("h200", None)
    assert stated.memory.total_bytes == 96 * GIB
    assert assumed.memory.total_bytes == 256 * GIB
    assert not [note for note in stated.notes if note.field == "memory.total_bytes"]
    assert [note for note in assumed.notes if note.field == "memory.total_bytes"]


@pytest.mark.parametrize(
    ("typed", "gib"), [("rtx-3060", 32), ("rtx-4090", 32), ("2x rtx-3090", 64), ("gpu:48GiB,48GiB", 128)]
)
def test_assumed_host_memory_is_a_power_of_two_that_holds_the_cards(typed: str, gib: int) -> None:
    assert resolve_machine(typed, None).memory.total_bytes == gib * GIB


@pytest.mark.parametrize("typed", ["apple-m4-max:64", "apple-m4-max:64GiB", "apple-m4-max:64GB", "m4 max:64"])
def test_an_apple_chip_shares_its_memory(typed: str) -> None:
    machine = resolve_machine(typed, None)
    gpu = machine.gpus[0]
    assert machine.memory.unified
    assert gpu.unified
    assert machine.memory.total_bytes == gpu.memory_total_bytes == 64 * GIB
    assert gpu.memory_limit_bytes == int(64 * GIB * 0.81)
    assert gpu.memory_usable_bytes == gpu.memory_limit_bytes
    assert gpu.bandwidth_bytes_per_s == machine.memory.bandwidth_bytes_per_s == 546_000_000_000
    assert machine.cpu.physical_cores == 16


def test_a_chip_with_variants_is_taken_at_its_slowest_and_said_so() -> None:
    machine = resolve_machine("apple-m4-max", None)
    assert machine.gpus[0].catalog_id == "apple-m4-max-32c"
    assert machine.gpus[0].memory_total_bytes == 36 * GIB
    assert any("smallest was taken" in note.why for note in machine.notes)
    slow = resolve_machine("h100", None)
    assert slow.gpus[0].catalog_id == "nvidia-h100-pcie"
    assert any("slowest was taken" in note.why for note in slow.notes)


def test_bare_sizes() -> None:
    machine = resolve_machine("gpu:24GiB,12GiB", None)
    assert sizes(machine) == [(24 * GIB, 24 * GIB - 512 * MIB), (12 * GIB, 12 * GIB - 512 * MIB)]
    assert machine.source == "bare sizes: gpu:24GiB,12GiB"
    assert "median" in (machine.gpus[0].bandwidth_source or "")


def test_total_and_free_are_taken_exactly() -> None:
    assert sizes(resolve_machine("gpu:16380MiB/15780MiB", "64GiB")) == [(16380 * MIB, 15780 * MIB)]


def test_cpu_only() -> None:
    machine = resolve_machine("cpu:32GiB", None)
    assert machine.gpus == ()
    assert machine.memory.total_bytes == 32 * GIB
    assert machine.memory.available_bytes == 28 * GIB
    assert machine.memory.bandwidth_bytes_per_s == 51_200_000_000
    assert machine.notes


def test_a_machine_file_and_a_tape(tmp_path: Path) -> None:
    tape = resolve_machine(str(TAPES / "linux-rtx3060-12g"), None)
    file = tmp_path / "machine.json"
    file.write_text(dumps(tape), encoding="utf-8")
    assert resolve_machine(str(file), None) == tape
    assert tape.source == "tape: linux-rtx3060-12g"
    assert tape.gpus[0].memory_usable_bytes == 11806 * MIB


@pytest.mark.parametrize("typed", ["", "here", "  "])
def test_nothing_is_this_machine(typed: str) -> None:
    assert resolve_machine(typed, None).source == "observed"


@pytest.mark.parametrize(
    ("typed", "kind", "message"),
    [
        ("rtx-409", ProfileError, "no device named"),
        ("rtx-4090:48", ProfileError, "not sold with 48.0 GiB"),
        ("apple-m4:17", ProfileError, "not sold with"),
        ("2x apple-m4", InputError, "shares memory with its host"),
        ("rtx-4090, gb10", InputError, "shares memory"),
        ("gpu:", InputError, "not a size"),
        ("gpu:x", InputError, "not a size"),
        ("gpu:0GiB", InputError, "cannot have"),
        ("gpu:8GiB/9GiB", InputError, "9.0 GiB free of 8.0 GiB"),
        ("cpu:", InputError, "not a size"),
        ("0x rtx-4090", InputError, "cannot read --on"),
        ("rtx-4090:24:24", InputError, "cannot read --on"),
        ("no/such/machine.json", InputError, "cannot read the machine"),
        (",", InputError, "cannot read --on"),
    ],
)
def test_mistakes_are_named_with_a_way_out(typed: str, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        resolve_machine(typed, None)
    assert caught.value.hint


def test_near_names_are_listed() -> None:
    with pytest.raises(ProfileError) as caught:
        resolve_machine("rtx-409", None)
    assert "nvidia-geforce-rtx-4090" in caught.value.hint


@pytest.mark.parametrize("typed", ["", "cpu:32GiB", "apple-m4-max:64", str(TAPES / "linux-rtx3060-12g")])
def test_ram_is_refused_where_memory_is_known(typed: str) -> None:
    with pytest.raises(InputError):
        resolve_machine(typed, "16GiB")


def test_a_machine_file_with_an_unknown_property_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text('{"schema": "glmplan/machine/1", "flux": 1}', encoding="utf-8")
    with pytest.raises(InputError, match=r"machine\.json"):
        resolve_machine(str(file), None)
