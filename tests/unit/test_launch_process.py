"""A process that says memory ran out and stays: the error is its own, and it is ended."""

import sys
import time
from pathlib import Path

import pytest

from glmplan.engine import EngineKind
from glmplan.launchers import process
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.port import free_port

_STAYS = "import sys, time; print(sys.argv[1], flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLMPLAN_HOME", str(tmp_path))


def staying(words: str, log: Path | None = None) -> process.EngineProcess:
    """A program that says `words` and goes on; they are in its log."""
    launch = Launch(
        engine=EngineKind.LLAMA_CPP_PYTHON,
        argv=(sys.executable, "-c", _STAYS, words),
        endpoint=Endpoint(port=free_port("127.0.0.1")),
        model_file="model.gguf",
        model_bytes=1,
        health_path="/health",
        timings=False,
    )
    started = process.start(launch, log=log)
    until = time.monotonic() + 30
    while f"\n{words}\n" not in started.log.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    return started


def test_memory_that_ran_out_ends_it_and_is_the_reason() -> None:
    with staying("MemoryError: Unable to allocate 3.00 GiB") as engine:
        assert engine.end_out_of_memory()
        assert engine.poll() is not None
        error = engine.failed(process.WHILE_SERVING)
    assert error.facts["cause"] == "out-of-memory"
    assert "stayed and was ended" in error.message


def test_anything_else_is_left_alone() -> None:
    with staying("ValueError: no") as engine:
        assert not engine.end_out_of_memory()
        assert engine.poll() is None


def test_what_an_earlier_start_said_does_not_count() -> None:
    with staying("MemoryError") as engine:
        log = engine.log
    with staying("all is well", log=log) as engine:
        assert not engine.end_out_of_memory()
