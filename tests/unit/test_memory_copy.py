"""The measured copy of main memory: kept, and measured again where other work may have made it slow."""

import json
import os
from pathlib import Path

import pytest

from glmplan.machine import Cpu, HostMemory
from glmplan.paths import cache_folder
from glmplan.profiles.probes.bandwidth import remembered_copy
from glmplan.units import GIB

CPU = Cpu(name="a processor", physical_cores=2, usable_cores=2)
MEMORY = HostMemory(total_bytes=24 * GIB, limit_bytes=None, available_bytes=20 * GIB, bandwidth_bytes_per_s=None)
MOST = 10**15


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLMPLAN_HOME", str(tmp_path))


def busy(monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))


def kept() -> dict[str, object]:
    document: dict[str, object] = json.loads((cache_folder() / "memory-copy.json").read_text())
    return document


def keep(bytes_per_s: int, **more: object) -> None:
    (cache_folder() / "memory-copy.json").write_text(json.dumps({**kept(), "bytes_per_s": bytes_per_s, **more}))


def test_a_copy_on_a_quiet_machine_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0.1)
    assert remembered_copy(CPU, MEMORY) == {"bytes_per_s": kept()["bytes_per_s"]}
    keep(7)
    assert remembered_copy(CPU, MEMORY) == {"bytes_per_s": 7}


def test_a_copy_beside_other_work_counts_until_the_machine_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 3.0)
    remembered_copy(CPU, MEMORY)
    assert kept()["quiet"] is False
    keep(7)
    assert remembered_copy(CPU, MEMORY) == {"bytes_per_s": 7}
    busy(monkeypatch, 0.1)
    assert remembered_copy(CPU, MEMORY) != {"bytes_per_s": 7}
    assert kept()["quiet"] is True


def test_the_most_that_was_seen_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 3.0)
    remembered_copy(CPU, MEMORY)
    keep(MOST)
    busy(monkeypatch, 0.1)
    assert remembered_copy(CPU, MEMORY) == {"bytes_per_s": MOST}


def test_another_processor_is_measured_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0.1)
    remembered_copy(CPU, MEMORY)
    keep(MOST)
    other = Cpu(name="another", physical_cores=2, usable_cores=2)
    assert remembered_copy(other, MEMORY) != {"bytes_per_s": MOST}
