"""ik_llama.cpp's own server on layers with GLM-4.7-Flash's shapes: launched, proven, measured, and in a race."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from console import Console, wait_until

from glmplan.engine import EngineKind
from glmplan.measurement import ROUNDING_BYTES
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic

pytestmark = [pytest.mark.e2e, pytest.mark.compiled]
N_CTX, N_LAYER = 4096, 4
KIND = EngineKind.IK_LLAMA.value


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_to(N_LAYER, tmp_path_factory.mktemp("cut"))


def cut_to(n_layer: int, folder: Path) -> Path:
    path = folder / f"glm-4.7-flash-{n_layer}-layers.gguf"
    write_synthetic(path, catalog_profile("q4_K_M", n_layer=n_layer), random_weights=True)
    return path


@pytest.fixture
def with_it(console: Console, ik_llama_server: Path) -> Console:
    console.environment["GLMPLAN_IK_LLAMA_SERVER"] = str(ik_llama_server)
    return console


def planned(console: Console, model: Path, *words: str) -> None:
    done = console.run("plan", "--gguf", str(model), "--n-ctx", str(N_CTX), *words, "-o", "plan.json")
    assert done.returncode == 0, done.stderr


def started(console: Console, *words: str) -> dict[str, Any]:
    done = console.run("run", "plan.json", *words, "--detach", "--port", str(console.port), "--json", timeout_s=240)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_its_cache_and_buffers_are_what_the_plan_said(with_it: Console, cut_model: Path) -> None:
    planned(with_it, cut_model, "--engine", KIND)
    (host,) = json.loads((with_it.folder / "plan.json").read_text())["memory"]["devices"]
    report = started(with_it, "--proof", "short")
    assert report["engine"] == KIND
    seen: dict[str, int] = {}
    for buffer in report["memory"]["buffers"]:
        seen[buffer["kind"]] = seen.get(buffer["kind"], 0) + buffer["n_bytes"]
    assert abs(seen["kv"] - N_LAYER * N_CTX * 1152) <= ROUNDING_BYTES
    assert abs(seen["model"] - host["weights_bytes"]) <= ROUNDING_BYTES + 4096
    assert abs(seen["compute"] - host["compute_bytes"]) <= ROUNDING_BYTES + 4096
    assert report["speed"]["prefill_tokens_per_s"] > report["speed"]["decode_tokens_per_s"] > 0
    assert len(report["answer"]) > 0
    samples = with_it.bench_samples(1)
    assert {sample["depth_tokens"] for sample in samples} == {0, 256}
    assert all(sample["server_timed"] for sample in samples)
    assert with_it.run("stop").returncode == 0
    with_it.wait_for_no_leftovers(5)


def test_it_says_the_same_next_tokens_as_llama_server(with_it: Console, cut_model: Path) -> None:
    """Noise for weights leaves no token far ahead: four of the five likeliest must be the same, not their order."""
    likeliest: list[list[set[str]]] = []
    for kind in (KIND, "llama-server"):
        planned(with_it, cut_model, "--engine", kind)
        report = started(with_it, "--proof", "none")
        # Not 1: its likeliest token is half a character, over which the fork's JSON breaks.
        likeliest.append([_likeliest(report["url"], seed) for seed in (0, 2, 3)])
        assert with_it.run("stop").returncode == 0
        with_it.wait_for_no_leftovers(5)
    assert all(len(its & theirs) >= 4 for its, theirs in zip(*likeliest, strict=True)), likeliest


def _likeliest(url: str, seed: int) -> set[str]:
    """The five likeliest tokens after a prompt of 64 tokens."""
    prompt = [1000 * seed + 37 * place for place in range(64)]
    asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5}
    answer = httpx.post(f"{url.removesuffix('/v1')}/completion", json=asked, timeout=60, trust_env=False).json()
    (first,) = answer["completion_probabilities"]
    rows = first.get("top_logprobs") or first["probs"]
    return {row.get("token") or row["tok_str"] for row in rows}


def test_a_plan_for_it_is_exported_with_a_warning(with_it: Console, cut_model: Path) -> None:
    planned(with_it, cut_model, "--engine", KIND)
    done = with_it.run("export", "script", "plan.json", "-o", "serve.sh")
    assert done.returncode == 0, done.stderr
    assert f"the plan was made for {KIND}" in done.stderr


def test_its_death_is_noticed_and_it_serves_again(with_it: Console, cut_model: Path) -> None:
    planned(with_it, cut_model, "--engine", KIND)
    first = started(with_it, "--proof", "none")
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: _pid(with_it) not in {None, first["pid"]}, 20, lambda: "it was not started again")
    second = _pid(with_it)
    assert second is not None
    assert psutil.pid_exists(second)
    assert with_it.run("stop").returncode == 0
    with_it.wait_for_no_leftovers(5)


def _pid(console: Console) -> int | None:
    rows = json.loads(console.run("status", "--json").stdout)["engines"]
    return next((row["pid"] for row in rows if row["state"] == "ready"), None)


def test_a_race_measures_it_beside_llama_servers_own_choices(with_it: Console, tmp_path: Path) -> None:
    planned(with_it, cut_to(2, tmp_path), "--engine", "llama-server")
    left = ("flash_attn", "huge_pages", "n_batch", "n_ubatch", "n_threads")
    done = with_it.run(
        "tune", "plan.json", *(word for knob in left for word in ("--pin", knob)), "--budget", "70s", "--depth", "128",
        "--prompt-tokens", "64", "--output-tokens", "8", "-o", "tuned.json", "--json", timeout_s=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    arms = {arm["name"]: arm for arm in report["arms"]}
    its = arms[f"by {KIND}, weights repacked"]
    assert its["failed"] is None
    assert its["runs"] >= 1
    assert its["prefill_tokens_per_s"]["basis"] == "measured"
    assert sum(arm["role"] == "rival" for arm in report["arms"]) == 2
    launch = with_it.run("run", "tuned.json", "--dry-run")
    assert launch.returncode == 0, launch.stderr
    assert ("ik-llama-server" in launch.stdout) == (report["plan"]["placement"]["engine"] == KIND)
    with_it.wait_for_no_leftovers(1)


def test_a_plan_for_it_where_it_is_not_says_what_to_do(console: Console, cut_model: Path) -> None:
    console.environment.pop("GLMPLAN_IK_LLAMA_SERVER", None)
    done = console.run("plan", "--gguf", str(cut_model), "--engine", KIND, "--json")
    assert done.returncode == 4
    assert "GLMPLAN_IK_LLAMA_SERVER" in json.loads(done.stdout)["error"]["hint"]
