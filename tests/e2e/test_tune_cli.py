"""glmplan tune with real engines on two layers with GLM-4.7-Flash's shapes; no assertion is about speed."""

import json
from pathlib import Path
from typing import Any

import pytest
from console import Console

from glmplan.engine import EngineKind
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic

pytestmark = pytest.mark.e2e
SHORT = ("--budget", "15s", "--prompt-tokens", "16", "--output-tokens", "4", "--depth", "32")
OUTCOMES = {"tuned", "kept", "rival", "rival_even", "no_time"}


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "glm-4.7-flash-2-layers.gguf"
    write_synthetic(path, catalog_profile("q4_K_M", n_layer=2), random_weights=True)
    return path


@pytest.mark.parametrize(
    "kind", [EngineKind.XLLAMACPP, pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled)]
)
def test_a_race_ends_in_a_plan_that_runs(console: Console, cut_model: Path, kind: EngineKind) -> None:
    planned = console.run(
        "plan", "--gguf", str(cut_model), "--n-ctx", "1024", "--engine", kind.value, "-o", "plan.json"
    )
    assert planned.returncode == 0, planned.stderr
    done = console.run("tune", "plan.json", *SHORT, "-o", "tuned.json", "--json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["schema"] == "glmplan/tune/1"
    assert report["outcome"] in OUTCOMES
    assert report["noise"]["runs"] == 4
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert {arm["role"] for arm in report["arms"]} >= {"plan", "neighbour", "rival"}  # which neighbours, time decides
    assert sum(arm["role"] == "rival" for arm in report["arms"]) == (2 if kind is EngineKind.LLAMA_SERVER else 1)
    assert arms["plan"]["decode_tokens_per_s"]["basis"] == "measured"
    assert (report["depth_tokens"], report["plan"]["placement"]["n_ctx"]) == (32, 1024)
    assert "noise 4, plan" in done.stderr
    assert json.loads((console.folder / "tuned.json").read_text()) == report["plan"]
    launch = console.run("run", "tuned.json", "--dry-run")
    assert launch.returncode == 0, launch.stderr
    listed = json.loads(console.run("bench", "--list", "--json").stdout)
    assert {one["origin"] for one in listed["records"]} == {"tune"}
    console.wait_for_no_leftovers(1)
    assert list((Path(console.environment["GLMPLAN_HOME"]) / "cache" / "tune").iterdir()) == []


def test_what_cannot_be_is_refused(console: Console, cut_model: Path) -> None:
    assert console.run("tune", "--pin", "colour").returncode == 2
    assert console.run("tune", "x.json", "--synthetic", "2").returncode == 2
    planned = console.run("plan", "--gguf", str(cut_model), "--n-ctx", "1024", "--engine", "xllamacpp", "-o", "p.json")
    assert planned.returncode == 0, planned.stderr
    deep = console.run("tune", "p.json", "--depth", "1k", "--json")
    assert deep.returncode == 2
    assert "--depth" in json.loads(deep.stdout)["error"]["hint"]
