"""The compiled engine as the probe sees it, against what the programs themselves do."""

import os
import subprocess
from pathlib import Path

import pytest

from glmplan.engine import EngineKind, engine_environment
from glmplan.profiles.host import LocalHost
from glmplan.profiles.probes.engine import find_engines, read_llama_server

pytestmark = pytest.mark.compiled


def test_the_probe_reads_the_compiled_server(engine_programs: Path) -> None:
    engine = read_llama_server(LocalHost(), str(engine_programs / "llama-server"))
    assert engine is not None
    assert engine.version
    assert engine.build
    assert engine.commit
    assert "cpu" in engine.backends
    assert {"--ctx-size", "-c", "--n-cpu-moe", "--cache-type-k", "--flash-attn", "--load-mode", "--fit"} <= engine.flags
    assert "--mlock" not in engine.flags  # gone from current builds


@pytest.mark.parametrize("words", [["--jinja"], ["--ctx-size", "4096"], ["--flash-attn", "on"], ["--no-such-flag"]])
def test_a_flag_is_listed_exactly_when_the_server_takes_it(engine_programs: Path, words: list[str]) -> None:
    engine = read_llama_server(LocalHost(), str(engine_programs / "llama-server"))
    assert engine is not None
    env = {**os.environ, **engine_environment(engine, os.environ)}
    done = subprocess.run(
        [engine.path, *words, "--version"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode == 0) == (words[0] in engine.flags)


def test_engines_are_found_best_first() -> None:
    kinds = [engine.kind for engine in find_engines(LocalHost())]
    assert kinds == sorted(kinds, key=list(EngineKind).index)
    assert EngineKind.LLAMA_CPP_PYTHON in kinds
