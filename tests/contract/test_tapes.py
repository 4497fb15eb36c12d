"""Recorded machines: each gives the machine it was recorded for, and no missing piece of one stops detection."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glmplan.jsonio import dumps, loads, to_jsonable
from glmplan.machine import Machine
from glmplan.profiles.detect import detect
from glmplan.profiles.store import parse_yaml
from glmplan.profiles.tape import TapeHost

ROOT = Path(__file__).parents[1] / "tapes"
TAPES = sorted(path for path in ROOT.iterdir() if path.is_dir())
INPUTS = [
    path
    for tape in TAPES
    for path in sorted(tape.rglob("*"))
    if path.is_file() and path.name not in {"expected.json", "meta.yaml"}
]


def named(path: Path) -> str:
    return path.name


def test_there_are_at_least_24_tapes_each_with_its_public_source() -> None:
    assert len(TAPES) >= 24
    for tape in TAPES:
        meta = parse_yaml((tape / "meta.yaml").read_text("utf-8"), origin=tape.name)
        assert len(meta["source"]) > 20, tape.name
        assert meta["filled_in"], tape.name


@pytest.mark.parametrize("tape", TAPES, ids=named)
def test_a_tape_gives_its_expected_machine(tape: Path) -> None:
    expected = json.loads((tape / "expected.json").read_text("utf-8"))
    host = TapeHost(tape)
    assert to_jsonable(detect(host)) == expected
    assert host.missed == []
    assert host.damaged == []


@pytest.mark.parametrize("tape", TAPES, ids=named)
def test_an_expected_machine_is_a_valid_machine_file(tape: Path) -> None:
    text = (tape / "expected.json").read_text("utf-8")
    assert dumps(loads(Machine, text, origin="expected.json")) + "\n" == text


def spoilt(path: Path, scratch: Path, keep_bytes: int | None) -> Path:
    """A copy of the tape of `path` with that file removed (None) or cut to its first bytes."""
    tape = next(tape for tape in TAPES if path.is_relative_to(tape))
    copy = scratch / tape.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tape, copy)
    victim = copy / path.relative_to(tape)
    if keep_bytes is None:
        victim.unlink()
    else:
        victim.write_bytes(path.read_bytes()[:keep_bytes])
    return copy


def assert_still_a_machine(tape: Path) -> None:
    machine = detect(TapeHost(tape))
    assert machine.schema == "glmplan/machine/1"
    assert machine.cpu.usable_cores >= 1
    # The net under a probe caught nothing: the parsers themselves coped.
    assert [note for note in machine.notes if note.why.startswith("the probe failed")] == []
    loads(Machine, dumps(machine), origin="round trip")


@pytest.mark.parametrize("tape", TAPES, ids=named)
def test_a_tape_with_any_one_file_removed_still_gives_a_machine(tape: Path, tmp_path: Path) -> None:
    for path in INPUTS:
        if path.is_relative_to(tape):
            assert_still_a_machine(spoilt(path, tmp_path, None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.sampled_from(INPUTS), share=st.floats(0, 1))
def test_a_tape_with_any_one_file_truncated_still_gives_a_machine(choice: Path, share: float, tmp_path: Path) -> None:
    assert_still_a_machine(spoilt(choice, tmp_path, int(choice.stat().st_size * share)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.sampled_from(INPUTS), noise=st.binary(max_size=64), position=st.floats(0, 1))
def test_a_tape_with_garbage_in_one_file_still_gives_a_machine(
    choice: Path, noise: bytes, position: float, tmp_path: Path
) -> None:
    tape = spoilt(choice, tmp_path, 2**30)
    victim = tape / choice.relative_to(next(entry for entry in TAPES if choice.is_relative_to(entry)))
    content = victim.read_bytes()
    middle = int(len(content) * position)
    victim.write_bytes(content[:middle] + noise + content[middle + len(noise) :])
    assert_still_a_machine(tape)


def test_a_container_with_6_gib_on_a_24_gib_host_has_6_gib() -> None:
    memory = detect(TapeHost(ROOT / "container-6g-on-24g")).memory
    assert memory.total_bytes == 24684096 * 1024
    assert memory.limit_bytes == 6 * 2**30
    assert memory.available_bytes == 6 * 2**30 - 2**30 + 2**29


def test_what_was_never_recorded_is_said() -> None:
    host = TapeHost(ROOT / "linux-rtx3060-12g")
    assert host.read("/never/asked") is None
    assert host.run(["never", "asked"]).returncode is None
    assert host.missed == ["read /never/asked", "run never asked"]
