"""What `glmplan run PLAN` costs over the bare engine command until the server answers; `-m bench` prints the table."""

import os
import shlex
import signal
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from console import SCRIPT, Console, wait_until

from glmplan.engine import EngineKind
from glmplan.launchers.health import Readiness, ask
from glmplan.launchers.launch import Endpoint

pytestmark = pytest.mark.bench
PAIRS = 5


def seconds_to_healthy(words: list[str], console: Console, port: int) -> float:
    endpoint = Endpoint(port=port)
    began = time.monotonic()
    with subprocess.Popen(
        words, env=console.environment, cwd=console.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        while ask(endpoint, "/health", timeout_s=0.2).readiness is not Readiness.READY:
            assert process.poll() is None
            assert time.monotonic() - began < 30
            time.sleep(0.005)
        seconds = time.monotonic() - began
        os.kill(process.pid, signal.SIGTERM)
        process.wait()
    wait_until(lambda: not console.leftovers(), 10, lambda: str(console.leftovers()))
    return seconds


def test_overhead_until_healthy(tmp_path: Path, tiny_gguf: Path) -> None:
    console = Console(tmp_path, tiny_gguf)
    plan = console.plan(EngineKind.XLLAMACPP)
    port = console.port
    command = console.run("run", plan, "--dry-run", "--port", str(port)).stdout
    pairs = [
        (
            seconds_to_healthy(shlex.split(command), console, port),
            seconds_to_healthy([str(SCRIPT), "run", plan, "--port", str(port)], console, port),
        )
        for _ in range(PAIRS)
    ]
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"\nuntil healthy, median of {PAIRS} pairs: bare {bare:.2f} s, glmplan run {ours:.2f} s")
    assert ours - bare <= 1.0
