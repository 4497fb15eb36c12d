"""Tools that hang: all of them together cost at most 5 seconds, and the one that hangs is named."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from glmplan.jsonio import loads
from glmplan.machine import Machine
from glmplan.profiles.detect import detect
from glmplan.profiles.host import Completed, LocalHost
from glmplan.profiles.probes.apple import DISPLAYS
from glmplan.profiles.tape import TapeHost

TAPES = Path(__file__).parents[1] / "tapes"
SLEEPS = "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 300 &\nwhile :; do sleep 300; done\n"
NO_LIBRARY = """
class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
def nvmlInit(): raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")
"""
HANGS = """
import time
class NVMLError(Exception): pass
def nvmlInit(): time.sleep(300)
"""


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def detected(folder: Path, pynvml: str, *fakes: str) -> tuple[Machine, float]:
    """`glmplan detect --json` with hanging programs first on PATH, and the seconds it took."""
    for name in fakes:
        program(folder / "bin", name, SLEEPS)
    program(folder / "python", "pynvml.py", pynvml)
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "python")}
    started = time.monotonic()
    done = subprocess.run(
        [Path(sys.executable).with_name("glmplan"), "detect", "--json"],
        env=env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    return loads(Machine, done.stdout, origin="stdout"), took


def sleepers() -> list[str]:
    found: list[str] = []
    for process in psutil.process_iter(["cmdline"]):
        words: list[str] = process.info["cmdline"] or []
        if words[:2] == ["sleep", "300"]:
            found.append(" ".join(words))
    return found


def test_a_hanging_nvidia_smi_costs_less_than_5_seconds_and_is_named(tmp_path: Path) -> None:
    machine, took = detected(tmp_path, NO_LIBRARY, "nvidia-smi")
    assert took < 5
    assert any("nvidia-smi gave no answer" in note.why for note in machine.notes)
    assert sleepers() == []


def test_a_hanging_nvml_costs_less_than_5_seconds_and_is_named(tmp_path: Path) -> None:
    machine, took = detected(tmp_path, HANGS, "nvidia-smi")
    assert took < 5
    assert any("NVML gave no answer in time" in note.why for note in machine.notes)


def test_everything_hanging_at_once_costs_less_than_5_seconds(tmp_path: Path) -> None:
    names = ("nvidia-smi", "llama-server", "ollama", "docker", "podman", "ramalama", "llama-swap", "local-ai", "lscpu")
    machine, took = detected(tmp_path, NO_LIBRARY, *names)
    assert took < 5
    assert {"ollama", "docker", "podman"} <= {engine.kind for engine in machine.engines}
    assert any("llama-server does not start" in note.why for note in machine.notes)
    assert sleepers() == []


class SlowMac(TapeHost):
    """A recorded Mac whose system_profiler really hangs."""

    def __init__(self, folder: Path, hanging: str) -> None:
        super().__init__(folder)
        self._live = LocalHost()
        self._hanging = hanging

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 2.0, remember_for: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        if tuple(argv) == DISPLAYS:
            return self._live.run([self._hanging], timeout_s=timeout_s)
        return super().run(argv, timeout_s=timeout_s, remember_for=remember_for, env=env)


def test_a_hanging_system_profiler_costs_less_than_5_seconds_and_is_named(tmp_path: Path) -> None:
    program(tmp_path, "system_profiler", SLEEPS)
    started = time.monotonic()
    machine = detect(SlowMac(TAPES / "macos26-m2pro-32g", str(tmp_path / "system_profiler")))
    assert time.monotonic() - started < 5
    assert any("system_profiler: no answer" in note.why for note in machine.notes)
    assert machine.gpus[0].memory_limit_bytes == int(34359738368 * 0.78)
    assert sleepers() == []


@pytest.mark.parametrize("argv", [["/no/such/program"], [""], ["/"], ["/etc/hostname"]])
def test_a_program_that_cannot_start_is_an_answer(argv: list[str]) -> None:
    done = LocalHost().run(argv)
    assert done.returncode is None
    assert done.why


def test_output_that_is_not_text_is_read(tmp_path: Path) -> None:
    program(tmp_path, "binary", "#!/bin/sh\nprintf '\\377\\376\\000ok'\n")
    assert "ok" in LocalHost().run([str(tmp_path / "binary")]).stdout


def test_a_spent_budget_is_said() -> None:
    host = LocalHost(budget_s=0.0)
    assert host.run(["true"]).why == "the 0 s for all probes were used up"


def test_answers_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    program(tmp_path, "tool", f"#!/bin/sh\necho x >> {counter}\ncat {counter} | wc -l\n")
    tool = str(tmp_path / "tool")
    first = LocalHost().run([tool], remember_for=tool)
    again = LocalHost().run([tool], remember_for=tool)
    os.utime(tool, (1, 1))
    changed = LocalHost().run([tool], remember_for=tool)
    assert [json.loads(done.stdout) for done in (first, again, changed)] == [1, 1, 2]
