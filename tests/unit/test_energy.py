"""Energy counters: recorded /sys trees, children that answer, stall and die, and what is said without one."""

import sys
from pathlib import Path

import pytest

from glmplan.profiles.assumed_machine import cpu_machine
from glmplan.profiles.energy import Meter, NvmlCounter, PowermetricsCounter, RaplCounter, energy_meter, rapl_zones

# `sudo powermetrics --samplers cpu_power,gpu_power -i 200` on an M-series Mac, shortened.
POWERMETRICS = """
*** Sampled system activity (Thu Jan  1 00:00:00 2026 +0000) (200.00ms elapsed) ***
CPU Power: 4000 mW
GPU Power: 6000 mW
Combined Power (CPU + GPU + ANE): 10000 mW
*** Sampled system activity (Thu Jan  1 00:00:00 2026 +0000) (400.00ms elapsed) ***
Combined Power (CPU + GPU + ANE): 5000 mW
"""


def zone(root: Path, folder: str, name: str, value: int, limit: int = 1_000_000) -> Path:
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{limit}\n")
    (path / "energy_uj").write_text(f"{value}\n")
    return path / "energy_uj"


def test_packages_and_memory_count_once_and_start_again(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 100_000)
    zone(tmp_path, "intel-rapl:1", "psys", 1)
    zones, why = rapl_zones(str(tmp_path))
    counter = RaplCounter(zones)
    assert (counter.covers, why) == (("package-0", "dram"), None)
    assert counter.read_joules() == 0.0
    package.write_text("100000\n")  # past its limit of 1 J
    memory.write_text("150000\n")
    assert counter.read_joules() == pytest.approx(0.25)
    memory.unlink()
    assert counter.read_joules() is None


def test_a_counter_for_root_alone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read = Path.read_text

    def refusing(path: Path, encoding: str | None = None) -> str:
        if path == energy:
            raise PermissionError
        return read(path, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", refusing)  # tests may run as root
    zones, why = rapl_zones(str(tmp_path))
    assert zones == []
    assert "root alone" in (why or "")


def test_no_counter_is_null_with_a_reason() -> None:
    with energy_meter(cpu_machine(2**34, source="test")) as meter:
        if meter.described.meter is None:
            assert meter.read_joules() is None
            assert meter.described.why
        else:
            assert meter.described.covers


ANSWERS = (
    "import sys, json\nn = 0\nfor _ in sys.stdin:\n    n += 500\n    print(json.dumps({'a': n, 'b': n}), flush=True)\n"
)


def test_cards_are_summed_through_a_child() -> None:
    counter = NvmlCounter([sys.executable, "-c", ANSWERS], ["gpu0 A", "gpu1 B"])
    try:
        assert [counter.read_joules(), counter.read_joules()] == [1.0, 2.0]
        meter = Meter([counter], None)
        assert meter.described.meter == "nvml"
        assert meter.read_joules() == 3.0
    finally:
        counter.close()
    assert counter.read_joules() is None


@pytest.mark.parametrize("words", ["raise SystemExit(1)", "input(); print('{\"a\": null}', flush=True); input()"])
def test_a_child_that_dies_or_a_card_that_does_not_tell_is_not_known(words: str) -> None:
    counter = NvmlCounter([sys.executable, "-c", words], ["gpu0 A"])
    try:
        assert counter.read_joules() is None
    finally:
        counter.close()


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glmplan.profiles.energy._ANSWER_S", 0.1)
    counter = NvmlCounter([sys.executable, "-c", "import time; time.sleep(60)"], ["gpu0 A"])
    assert counter.read_joules() is None
    counter.close()


def test_powermetrics_is_summed_over_its_samples(tmp_path: Path) -> None:
    text = tmp_path / "samples"
    text.write_text(POWERMETRICS)
    counter = PowermetricsCounter([sys.executable, "-c", f"print(open({str(text)!r}).read(), flush=True); input()"])
    try:
        assert counter.read_joules() is not None
        while (joules := counter.read_joules()) != pytest.approx(10.0 * 0.2 + 5.0 * 0.4):
            assert joules is not None
    finally:
        counter.close()
