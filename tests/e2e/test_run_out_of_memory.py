"""Memory that runs out for real: a limit on the engine's address space, a plan that asks for more, and what follows.

The model has GLM-4.7-Flash's own shapes, 4 of its 47 layers, with synthetic weights.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from console import Console

from glmplan.engine import EngineKind
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic
from glmplan.units import MIB

pytestmark = pytest.mark.e2e
EMBEDDED = EngineKind.XLLAMACPP
KINDS = [
    EMBEDDED,
    pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled),
    pytest.param(EngineKind.LLAMA_CPP_PYTHON, marks=pytest.mark.compiled),
]
N_CTX: Final = 131072  # 576 MiB of f16 cache in 4 layers
_SHORT: Final = ("--proof", "short")
_LIMIT: Final = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_AS, (n, n)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "glm-4.7-flash-4-layers.gguf"
    write_synthetic(path, catalog_profile("q4_K_M", n_layer=4), random_weights=True)
    return path


def plan_file(console: Console, model: Path, kind: EngineKind, *, pinned: bool) -> str:
    """A plan with N_CTX tokens of f16 cache, with or without the user having asked for that."""
    path = console.folder / f"{kind}.json"
    words = ("--n-ctx", str(N_CTX), "--cache-type", "f16")
    done = console.run("plan", "--gguf", str(model), "--engine", kind.value, *words, "-o", str(path))
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    # Threads that wait for each other by spinning take for ever while others use the machine.
    document["placement"] |= {"n_threads": 1, "n_threads_batch": 1}
    if not pinned:
        document["pins"] |= {"n_ctx": None, "cache_type": None}
    path.write_text(json.dumps(document))
    return str(path)


def address_space_bytes(console: Console, plan: str) -> int:
    """What the engine of `plan` maps at most, without a limit."""
    done = console.run("run", plan, *_SHORT, "--port", str(console.port), "--detach", "--json", timeout_s=240)
    assert done.returncode == 0, done.stderr
    pid = json.loads(done.stdout)["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmPeak")).split()[1])
    assert console.run("stop").returncode == 0
    return peak_kib * 1024


def limited_to(n_bytes: int) -> tuple[str, ...]:
    """Run under an address space limit, which children inherit."""
    return (sys.executable, "-c", _LIMIT, str(n_bytes))


def launch(console: Console, plan: str, limit: int, *words: str) -> tuple[int, dict[str, Any], str]:
    command = ("run", plan, *_SHORT, "--port", str(console.port), "--detach", "--json", *words)
    done = console.run(*command, prefix=limited_to(limit), timeout_s=240)
    assert "Traceback" not in done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_plan_is_announced_tried_and_reported(console: Console, cut_model: Path, kind: EngineKind) -> None:
    plan = plan_file(console, cut_model, kind, pinned=False)
    limit = address_space_bytes(console, plan) - 200 * MIB
    code, report, said = launch(console, plan, limit)
    assert code == 0, said
    assert 1 <= len(report["step_downs"]) <= 3
    for step in report["step_downs"]:
        assert step["device"] == "host"
        assert step["needed_bytes_after"] < step["needed_bytes_before"]
        assert step["because"]
        assert f"step-down {step['number']} of at most 3" in said
    knobs = {change["knob"] for step in report["step_downs"] for change in step["changes"]}
    assert knobs <= {"cache_ram_bytes", "flash_attn", "cache_type", "n_ctx"}
    assert "cache_type" in knobs
    (engine,) = json.loads(console.run("status", "--json").stdout)["engines"]
    assert (engine["state"], engine["step_downs"]) == ("ready", len(report["step_downs"]))
    assert engine["n_ctx"] == report["n_ctx"]
    assert "step-down 1 of at most 3" in console.run("logs").stdout
    assert console.run("stop").returncode == 0
    # What the build turned out to need is kept free by the next plan, which says so; and it can be forgotten.
    text = (Path(console.environment["GLMPLAN_HOME"]) / "data" / "reserves.json").read_text()
    (reserve,) = json.loads(text)
    assert (reserve["engine"], reserve["device"]) == (kind.value, "host")
    again = console.run("plan", "--gguf", str(cut_model), "--engine", kind.value, "--json")
    assert any("ran out of memory there" in reason for reason in json.loads(again.stdout)["reasons"])
    (row,) = json.loads(again.stdout)["memory"]["devices"]
    assert row["usable_bytes"] + reserve["reserve_bytes"] <= psutil.virtual_memory().total
    listed = json.loads(console.run("doctor", "--json").stdout)["reserves"]
    assert [one["reserve_bytes"] for one in listed] == [reserve["reserve_bytes"]]
    assert "keeps" in console.run("doctor").stdout
    assert "forgotten: " in console.run("doctor", "--forget-reserves").stderr
    assert json.loads(console.run("doctor", "--json").stdout)["reserves"] == []


def test_what_the_user_pinned_is_not_broken(console: Console, cut_model: Path) -> None:
    plan = plan_file(console, cut_model, EMBEDDED, pinned=True)
    limit = address_space_bytes(console, plan) - 200 * MIB
    code, document, said = launch(console, plan, limit)
    assert code == 4
    error = document["error"]
    assert error["type"] == "EngineExited"
    assert error["facts"]["cause"] == "out-of-memory"
    assert "what could give way is pinned by the plan" in error["message"]
    assert "--cache-type q8_0" in error["hint"]
    assert "--n-ctx" in error["hint"]
    assert "step-down" not in said
    console.wait_for_no_leftovers(1)
    code, document, _ = launch(console, plan, limit, "--no-step-down")
    assert (code, document["error"]["facts"]["cause"]) == (4, "out-of-memory")
    assert "pinned" not in document["error"]["message"]
