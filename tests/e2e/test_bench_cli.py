"""glmplan bench with real engines and a tiny model: streams, what is left out, prices, the history, comparisons."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from console import Console

from glmplan.engine import EngineKind

pytestmark = pytest.mark.e2e
SHORT = ("--prompt-tokens", "32", "--output-tokens", "8")


def document(console: Console, *words: str) -> dict[str, Any]:
    done = console.run("bench", *words, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    "kind", [EngineKind.XLLAMACPP, pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled)]
)
def test_streams_depths_and_what_does_not_fit(console: Console, kind: EngineKind) -> None:
    plan = console.plan(kind, n_parallel=3, n_ctx=2048)
    report = document(console, plan, *SHORT, "--repetitions", "2")
    points = [(row["depth_tokens"], row["n_streams"], row["samples"]) for row in report["summary"]]
    assert points == [(0, 1, 2), (0, 2, 4), (0, 3, 6)]
    left = {(row["depth_tokens"], row["n_streams"]): row["why"] for row in report["left_out"]}
    assert set(left) == {(depth, n) for depth in (4096, 16384, 32768) for n in (1, 2, 3)}
    assert left[4096, 1] == "takes 4136 tokens, the engine's context is 2048"
    three = report["summary"][2]
    assert three["aggregate_decode_tokens_per_s"]["value"] > 0  # how much more than one stream depends on the load
    assert three["tpot_ms"]["p95"] >= three["tpot_ms"]["p50"] > 0
    samples = report["measurement"]["samples"]
    assert [sample["n_streams"] for sample in samples] == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    assert report["measurement"]["placement"]["n_parallel"] == 3
    assert report["measurement"]["machine"]["fingerprint"] == report["measurement"]["machine_fingerprint"]
    console.wait_for_no_leftovers(1)


def test_every_stream_has_its_own_prefix(console: Console) -> None:
    plan = console.plan(EngineKind.XLLAMACPP, n_parallel=2, n_ctx=2048)
    report = document(console, plan, *SHORT, "--depth", "0,256", "--streams", "2", "--repetitions", "1")
    deep = [sample for sample in report["measurement"]["samples"] if sample["depth_tokens"]]
    assert [(sample["n_streams"], 240 <= sample["depth_tokens"] <= 256) for sample in deep] == [(2, True)] * 2
    refused = console.run("bench", plan, *SHORT, "--depth", "1k", "--streams", "2", "--json")
    assert refused.returncode == 6
    assert json.loads(refused.stdout)["error"]["facts"]["needed_tokens"] == 2 * (1024 + 40)


def test_what_would_take_too_long_is_left_out_and_said(console: Console) -> None:
    plan = console.plan(EngineKind.XLLAMACPP, n_ctx=8192)
    report = document(console, plan, *SHORT, "--repetitions", "1", "--max-time", "0.01s")
    assert [row["depth_tokens"] for row in report["summary"]] == [0]
    (slow, *_) = report["left_out"]
    assert slow["depth_tokens"] == 4096
    assert "of --max-time 0.01" in slow["why"]


def test_prices_history_and_comparison(console: Console) -> None:
    plan, other = console.plan(EngineKind.XLLAMACPP), console.plan(EngineKind.XLLAMACPP, n_ubatch=64)
    first = document(console, plan, *SHORT, "--kwh-price", "0.3", "--watts", "60")
    cost = first["cost"]
    assert (cost["hosted"]["input_per_million"], cost["hosted"]["output_per_million"]) == (0.07, 0.4)
    assert cost["basis"] in {"assumed", "measured"}
    assert cost["electricity"]["value"] > 0
    energy = first["measurement"]["energy"]
    assert (energy["meter"] is None) == bool(energy["why"])
    time.sleep(1)  # a time names a record to the second
    second = document(console, other, *SHORT)
    assert (first["record"], second["record"]) == (1, 2)
    assert second["cost"]["electricity"] is None
    assert "--kwh-price" in second["cost"]["why"]

    listed = document(console, "--list")
    assert listed["schema"] == "glmplan/bench-list/1"
    assert [(one["number"], one["origin"]) for one in listed["records"]] == [(1, "bench"), (2, "bench")]
    found = document(console, "--compare", "1", "last")
    assert found["schema"] == "glmplan/bench-compare/1"
    assert found["differences"] == ["n_ubatch: 128 and 64"]
    assert {speed["metric"] for speed in found["speeds"]} == {"prefill_tokens_per_s", "decode_tokens_per_s"}
    report = console.folder / "report.json"
    report.write_text(json.dumps(first))
    text = console.run("bench", "--compare", str(report), listed["records"][1]["created_at"]).stdout
    assert "B / A" in text
    assert "n_ubatch: 128 and 64" in text
    unknown = console.run("bench", "--compare", "1", "77", "--json")
    assert unknown.returncode == 2
    assert "glmplan bench --list" in json.loads(unknown.stdout)["error"]["hint"]
    assert "NUMBER" in console.run("bench", "--list").stdout


def test_the_table_says_price_and_energy(console: Console) -> None:
    done = console.run("bench", console.plan(EngineKind.XLLAMACPP), *SHORT, "--repetitions", "1")
    assert done.returncode == 0, done.stderr
    for words in ("FIRST TOKEN ms p50 / p95", "Z.AI API", "electricity here", "left out: depth 4096", "forecast"):
        assert words in done.stdout
    (kept,) = (Path(console.environment["GLMPLAN_HOME"]) / "data" / "measurements").glob("*.jsonl")
    assert str(kept) in done.stderr
