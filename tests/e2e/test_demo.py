"""`glmplan demo` for real: from detection to a measured, stopped engine, and nothing of it left behind."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from console import Console, wait_until

pytestmark = pytest.mark.e2e
DEMO = ("demo", "--engine", "xllamacpp", "--layers", "2")
STEPS = [
    "This machine",
    "The plan for GLM-4.7-Flash, full size, on this machine",
    "A stand-in: 2 of 47 layers, true shapes, synthetic weights",
    "Launch, answer, measure: xllamacpp",
    "The same launch without glmplan",
]


def model_files(console: Console) -> list[Path]:
    """Models anywhere in this test's home, which holds all of glmplan's folders."""
    return list(Path(console.environment["HOME"]).rglob("*.gguf"))


def test_the_demo_runs_to_its_last_line_and_leaves_nothing(console: Console) -> None:
    done = console.run(*DEMO, timeout_s=180)
    assert done.returncode == 0, done.stderr
    titles = re.findall(r"^\[(\d)/5\] (.*)$", done.stdout, re.MULTILINE)
    assert [number for number, _ in titles] == ["1", "2", "3", "4", "5"]
    assert all(title.startswith(wanted) for (_, title), wanted in zip(titles, STEPS, strict=True))
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("done: ready after ")
    assert "(measured; a cut model with synthetic weights)" in last
    assert console.leftovers() == []
    assert json.loads(console.run("status", "--json").stdout)["engines"] == []
    assert model_files(console) == []
    check_honesty(" ".join(done.stdout.split()))
    check_script(done.stdout)


def check_honesty(text: str) -> None:
    """What is synthetic is said, and where each number comes from."""
    assert "its text is noise, because the weights are; its memory and its speed are real" in text
    assert "The weights are synthetic: the text is noise" in text
    assert re.search(r"total [\d.]+ GiB, .*available [\d.]+ GiB \(measured\)", text)
    for moment in ("written in", "ready after"):
        assert re.search(rf"{moment} [\d.]+ s \(measured\)", text)
    for row in ("weights", "KV cache", "compute"):
        assert re.search(rf"{row} [\d.]+ [GM]iB \(computed\) [\d.]+ [GM]iB", text)
    basis = r"\((computed|computed, calibrated|measured|assumed)\)"
    assert re.search(rf"decode [\d.]+ tokens/s, [\d.]+ to [\d.]+ {basis} [\d.]+ tokens/s", text)


def check_script(text: str) -> None:
    """The exported script is there, and a shell can read it."""
    named = re.search(r"^ +(/\S+\.sh): a POSIX script", text, re.MULTILINE)
    assert named is not None, text
    script = Path(named[1])
    assert os.access(script, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", str(script)], check=False).returncode == 0
    assert "glm-4.7-flash-q4_K_M-2-layers-synthetic.gguf" in script.read_text()


def test_keep_keeps_the_sparse_file_where_it_says(console: Console) -> None:
    done = console.run(*DEMO, "--keep", timeout_s=180)
    assert done.returncode == 0, done.stderr
    (kept,) = model_files(console)
    assert kept.name in done.stdout
    held = kept.stat()
    assert held.st_blocks * 512 < 0.7 * held.st_size
    header = json.loads(console.run("inspect", str(kept), "--json").stdout)
    assert (header["architecture"], header["block_count"]) == ("deepseek2", 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_interrupted_cleans_up(console: Console, number: signal.Signals, code: int) -> None:
    running = console.start(*DEMO)
    wait_until(lambda: len(console.leftovers()) > 1 or running.popen.poll() is not None, 60, lambda: running.stderr)
    wait_until(lambda: "[4/5]" in running.stdout or running.popen.poll() is not None, 60, lambda: running.stderr)
    wait_until(lambda: len(console.leftovers()) > 1 or running.popen.poll() is not None, 60, lambda: running.stderr)
    running.popen.send_signal(number)
    assert running.wait() == code, running.stderr
    assert "Traceback" not in running.stderr
    console.wait_for_no_leftovers(2)
    assert model_files(console) == []
