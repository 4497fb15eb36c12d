"""How long commands take on this machine, from exec to exit: `pytest -m bench -s tests/bench/test_cli_speed.py`.

Two columns of times: with byte code cached, as after any first run, and with PYTHONDONTWRITEBYTECODE set, where an
editable install compiles glmplan's own modules on every start. Both run a copy of the sources, so that what the
checkout happens to hold in __pycache__ decides nothing. The bars are for 2 cores and 24 GiB with an idle machine.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from glmplan.launchers.export.formats import FORMATS

pytestmark = pytest.mark.bench
ROOT: Final = Path(__file__).parents[2]
REPETITIONS: Final = 7
BARS_S: Final = {
    "--help": 0.25,
    "--version": 0.25,
    "detect --json": 0.5,
    "plan --json": 1.0,
    "plan --json --on rtx-4090": 1.0,
    "estimate --json": 0.4,
}
EXPORT_BAR_S: Final = 0.3
# Far beyond a bar even a busy machine shows that something heavy has come onto the path.
SANITY: Final = 8


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The packages without byte code."""
    for name in ("glmplan", "planner", "profiles", "launchers"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def seconds(words: list[str], sources: Path, environment: dict[str, str]) -> list[float]:
    """Wall times of `REPETITIONS` runs of the copy in `sources`, after one that is not counted."""
    times: list[float] = []
    for _ in range(REPETITIONS + 1):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "glmplan", *words],
            env=environment, cwd=sources, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        times.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr.decode()
        if "--json" in words:
            json.loads(done.stdout)
    return times[1:]


def test_commands_start_and_answer_quickly(sources: Path) -> None:
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    load = os.getloadavg()[0]
    rows: list[str] = []
    for line, bar in BARS_S.items():
        # First without writing: there is no byte code of ours yet.
        compiled = seconds(line.split(), sources, cached | {"PYTHONDONTWRITEBYTECODE": "1"})
        kept = seconds(line.split(), sources, cached)
        for folder in sources.rglob("__pycache__"):
            shutil.rmtree(folder)
        over = "" if min(kept) <= bar else "  over the bar"
        cells = (min(kept), statistics.median(kept), min(compiled), statistics.median(compiled))
        rows.append(f"{line:27}{bar:6.2f}" + "".join(f"{cell:10.3f}" for cell in cells) + over)
        assert min(kept) < SANITY * bar, rows[-1]
    head = f"{'glmplan ...':27}{'bar':>6}" + "".join(f"{name:>10}" for name in ("best", "median", "no .pyc", "median"))
    print(f"\nseconds, {REPETITIONS} runs, load average {load:.2f}", head, *rows, sep="\n")


def test_every_export_is_written_quickly(sources: Path) -> None:
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds(["plan", "--json", "--on", "h100-sxm", "-o", "plan.json"], sources, cached)
    load = os.getloadavg()[0]
    rows: list[str] = []
    for name in FORMATS:
        words = ["export", name, "plan.json", "--model-file", "/models/GLM-4.7-Flash-Q8_0.gguf"]
        times = seconds(words, sources, cached)
        over = "" if min(times) <= EXPORT_BAR_S else "  over the bar"
        rows.append(
            f"{name:20}" + "".join(f"{cell:8.3f}" for cell in (min(times), statistics.median(times), max(times)))
        )
        rows[-1] += over
        assert min(times) < SANITY * EXPORT_BAR_S, rows[-1]
    head = f"{'glmplan export ...':20}" + "".join(f"{name:>8}" for name in ("best", "p50", "max"))
    print(f"\nseconds, {REPETITIONS} runs, bar {EXPORT_BAR_S}, load average {load:.2f}", head, *rows, sep="\n")


def test_nothing_heavy_is_imported_at_the_start(sources: Path) -> None:
    """The cause of most slow starts, told apart from a slow machine."""
    code = "import sys, glmplan.cli; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, check=True)
    heavy = {"psutil", "pynvml", "cpuinfo", "httpx", "yaml", "gguf", "numpy", "llama_cpp", "xllamacpp", "platformdirs"}
    assert heavy & set(done.stdout.split()) == set()
