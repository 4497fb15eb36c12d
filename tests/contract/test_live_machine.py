"""Ours against the system's own tools on the machine that runs the tests; tools that are not here are not asked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from glmplan.jsonio import to_jsonable
from glmplan.machine import Machine
from glmplan.profiles.detect import detect
from glmplan.profiles.host import LocalHost
from glmplan.profiles.recording import record_to
from glmplan.profiles.tape import Recorder, TapeHost
from glmplan.units import GIB, KIB, MIB

LINUX = sys.platform == "linux"
TAPES = Path(__file__).parents[1] / "tapes"


@pytest.fixture(scope="module")
def machine() -> Machine:
    return detect(LocalHost())


def printed(*argv: str) -> str:
    """What a tool prints, untranslated; empty when it is not installed."""
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    return done.stdout


def test_total_memory_is_that_of_psutil_to_the_byte(machine: Machine) -> None:
    assert machine.memory.total_bytes == psutil.virtual_memory().total


def test_memory_is_that_of_free(machine: Machine) -> None:
    rows = {line.split(":")[0]: line.split()[1:] for line in printed("free", "-b").splitlines() if ":" in line}
    if "Mem" in rows:
        assert machine.memory.total_bytes == int(rows["Mem"][0])
        assert machine.memory.swap_total_bytes == int(rows["Swap"][0])
    available = psutil.virtual_memory().available
    unlimited = machine.memory.limit_bytes is None
    if unlimited and LINUX:
        assert machine.memory.available_bytes == pytest.approx(available, abs=GIB)
    assert 0 < (machine.memory.available_bytes or 0) <= (machine.memory.total_bytes or 0)


def test_meminfo_kilobytes_are_kibibytes(machine: Machine) -> None:
    lines = Path("/proc/meminfo").read_text("utf-8").splitlines() if LINUX else []
    for line in lines:
        if line.startswith("MemTotal:"):
            assert machine.memory.total_bytes == int(line.split()[1]) * KIB
    assert (machine.memory.total_bytes or 0) % KIB == 0


def test_usable_cores_are_those_of_nproc_or_fewer_by_quota(machine: Machine) -> None:
    allowed = int(printed("nproc") or os.cpu_count() or 1)
    limited = any(note.field == "cpu.usable_cores" for note in machine.notes)
    assert machine.cpu.usable_cores <= allowed if limited else machine.cpu.usable_cores == allowed


def test_cores_and_name_are_those_of_lscpu(machine: Machine) -> None:
    text = printed("lscpu")
    rows = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    if "Core(s) per socket" in rows:
        assert machine.cpu.physical_cores == int(rows["Core(s) per socket"]) * int(rows["Socket(s)"])
        assert machine.cpu.logical_cores == int(rows["CPU(s)"])
    if "Flags" in rows:
        assert set(machine.cpu.features) <= set(rows["Flags"].split())
        assert machine.cpu.name == rows["Model name"]
    assert machine.cpu.logical_cores == psutil.cpu_count()


def test_numa_nodes_are_those_of_sys(machine: Machine) -> None:
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) if LINUX else 0
    assert machine.memory.numa_nodes == (nodes or None)


def test_the_disk_is_that_of_the_home_folder(machine: Machine) -> None:
    assert machine.disk is not None
    usage = shutil.disk_usage(machine.disk.path)
    assert machine.disk.total_bytes == usage.total
    assert machine.disk.free_bytes == pytest.approx(usage.free, abs=4 * GIB)


def test_a_recording_replays_to_the_same_machine(tmp_path: Path) -> None:
    recorder = Recorder(LocalHost())
    live = to_jsonable(detect(recorder))
    record_to(recorder, tmp_path / "tape")
    host = TapeHost(tmp_path / "tape")
    replayed = to_jsonable(detect(host))
    assert host.missed == []
    assert replayed.pop("source") == "tape: tape"
    assert live.pop("source") == "observed"
    for machine in (live, replayed):
        # Paths of this user's home and environment are scrubbed.
        machine["disk"]["path"] = ""
        machine["engines"] = [entry["kind"] for entry in machine["engines"]]
        machine["models"] = []
        machine["notes"] = [note["field"] for note in machine["notes"]]
    assert replayed == live


LIMIT = 6 * GIB
INSIDE = dedent(
    """
    import json, os, pathlib, sys
    pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
    from glmplan.profiles.detect import detect
    from glmplan.profiles.host import LocalHost
    memory = detect(LocalHost()).memory
    print(json.dumps([memory.limit_bytes, memory.available_bytes]))
    """
)


@pytest.fixture
def limited_group() -> Iterator[Path | None]:
    """A control group below our own with a limit of 6 GiB; None where this user may not make one."""
    group = _own_group()
    if group is None:
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()


def _own_group() -> Path | None:
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    controller, limit_name = ("", "memory.max") if unified else ("memory", "memory.limit_in_bytes")
    path = next((fields[2] for fields in _groups() if controller in fields[1].split(",")), "/")
    group = root / controller / path.lstrip("/") / f"glmplan-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        (group / limit_name).write_text(str(LIMIT))
    except OSError:
        group.rmdir()
        return None
    return group


def _groups() -> list[list[str]]:
    """Lines of /proc/self/cgroup: number, controllers, path."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    return [line.split(":", 2) for line in lines]


def test_a_real_control_group_of_6_gib_limits_the_machine(limited_group: Path | None) -> None:
    total = psutil.virtual_memory().total
    if limited_group is None or total <= LIMIT:
        # Not permitted here: the same machine from its tape.
        memory = detect(TapeHost(TAPES / "container-6g-on-24g")).memory
        limit, available = memory.limit_bytes, memory.available_bytes
    else:
        done = subprocess.run(
            [sys.executable, "-c", INSIDE, str(limited_group)], capture_output=True, text=True, timeout=30, check=True
        )
        limit, available = json.loads(done.stdout)
    assert limit == LIMIT
    assert available is not None
    assert 5 * GIB < available <= LIMIT
    assert available % MIB >= 0
