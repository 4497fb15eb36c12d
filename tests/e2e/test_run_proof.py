"""The proof of a launch with real engines: filled contexts, the ledger, conversations, and what may go wrong."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from console import Console, Foreground, wait_until
from tiny import write_tiny

from glmplan.commands.launching import load_plan
from glmplan.commands.proof_speeds import filled
from glmplan.engine import EngineKind
from glmplan.launchers.client import look
from glmplan.measurement import SpeedSample
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.store import shipped_text
from glmplan.profiles.synthetic import write_synthetic
from glmplan.proof_settings import ProofKind
from glmplan.units import MIB

pytestmark = pytest.mark.e2e
EMBEDDED = EngineKind.XLLAMACPP
COMPILED = pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled)
KINDS = [EMBEDDED, COMPILED]
EVERY_KIND = [*KINDS, pytest.param(EngineKind.LLAMA_CPP_PYTHON, marks=pytest.mark.compiled)]


@pytest.fixture(scope="module")
def cut_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with GLM-4.7-Flash's own shapes."""
    path = tmp_path_factory.mktemp("cut") / "glm-4.7-flash-2-layers.gguf"
    write_synthetic(path, catalog_profile("q4_K_M", n_layer=2), random_weights=True)
    return path


def planned(console: Console, model: Path, kind: EngineKind, n_ctx: int) -> str:
    """A plan that the planner made, with one thread: several wait for each other by spinning."""
    path = console.folder / f"{n_ctx}.json"
    done = console.run("plan", "--gguf", str(model), "--n-ctx", str(n_ctx), "--engine", kind.value, "-o", str(path))
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text())
    document["placement"] |= {"n_threads": 1, "n_threads_batch": 1}
    path.write_text(json.dumps(document))
    return str(path)


def launched(console: Console, plan: str, *words: str) -> tuple[dict[str, Any], str]:
    """The report of a launch that is stopped again, and what was said on the way."""
    done = console.run("run", plan, *words, "--detach", "--port", str(console.port), "--json", timeout_s=180)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert console.run("stop").returncode == 0
    report: dict[str, Any] = json.loads(done.stdout)
    return report, done.stderr


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_whole_context_is_filled_and_said(console: Console, kind: EngineKind) -> None:
    report, said = launched(console, console.plan(kind), "--proof", "full")
    proof = report["proof"]
    depth, (short, deep) = proof["depth"], proof["speeds"]
    assert (proof["asked"], depth["context_tokens"], depth["full_tokens"]) == ("full", 2048, 2024)
    assert f"proof: {depth['why']}" in said
    assert depth["why"].startswith("filling 2,024 of 2,048 tokens, as asked")
    assert short["measured"] == report["speed"]
    measured = deep["measured"]
    assert measured["depth_tokens"] + measured["prompt_tokens"] == depth["filled_tokens"]
    if kind is EngineKind.LLAMA_CPP_PYTHON:  # words are counted, tokens are not measured out
        assert 0.9 * 2024 <= depth["filled_tokens"] <= 2024
    else:
        assert (measured["depth_tokens"], measured["prompt_tokens"], depth["filled_tokens"]) == (1896, 128, 2024)
    assert measured["output_tokens"] == 24
    assert measured["decode_tokens_per_s"] > 0
    # A plan made by hand forecasts its own depth alone.
    assert short["forecast"]["decode_tokens_per_s"]["basis"] == "assumed"
    assert deep["forecast"] is None
    assert "forecasts a depth of 0 tokens" in deep["why"]
    again, _ = launched(console, console.plan(kind), "--proof", "short")
    assert again["answer"] == report["answer"]
    assert [len(run["proof"]["speeds"]) for run in (report, again)] == [2, 1]
    assert {trip["passed"] for trip in (proof["tool_call"], proof["thinking"])} == {None}
    assert "synthetic" in proof["tool_call"]["why"]


def test_as_deep_as_the_time_allows_or_not_at_all(console: Console) -> None:
    plan = console.plan(EMBEDDED)
    report, said = launched(console, plan, "--proof-seconds", "3600")
    depth = report["proof"]["depth"]
    assert (report["proof"]["asked"], depth["limit_s"], depth["filled_tokens"]) == ("auto", 3600, 2024)
    assert "of the 1 h 0 min allowed" in said
    assert "print_timing" in Path(report["log"]).read_text()
    report, said = launched(console, plan, "--proof-seconds", "0")
    depth = report["proof"]["depth"]
    assert (depth["filled_tokens"], depth["expected_s"]) == (128, 0)
    assert "proof: the short measurement only: 512 of 2,048 tokens would take about" in said
    report, _ = launched(console, plan, "--proof", "none")
    assert (report["answer"], report["speed"], report["proof"]["depth"]) == (None, None, None)
    assert report["proof"]["speeds"] == []
    assert "--proof none" in report["proof"]["tool_call"]["why"]
    assert next(line for line in report["proof"]["ledger"] if line["part"] == "kv_cache")["difference_bytes"] < 6000
    assert "print_timing" not in Path(report["log"]).read_text()


def test_filling_ends_when_the_time_is_up_and_what_was_reached_is_measured(console: Console) -> None:
    """A short measurement that was far too fast has the whole context tried; the clock knows better."""
    plan_file = console.plan(EMBEDDED)
    done = console.run("run", plan_file, "--proof", "none", "--detach", "--port", str(console.port), "--json")
    url = json.loads(done.stdout)["url"]
    fast = SpeedSample(
        prompt_tokens=128,
        output_tokens=24,
        ttft_ms=1e-6,
        prefill_tokens_per_s=1e12,
        decode_tokens_per_s=1e12,
        tpot_ms=1e-9,
        depth_tokens=0,
        server_timed=True,
    )
    depth, (_, deep) = filled(load_plan(plan_file), look(url), fast, kind=ProofKind.AUTO, limit_s=1e-4)
    assert console.run("stop").returncode == 0
    assert (depth.full_tokens, depth.filled_tokens) == (2024, 640)
    assert depth.why == "filling 2,024 of 2,048 tokens: about 0 s of the 0 s allowed; the time was up after 640 tokens"
    assert (deep.measured.depth_tokens, deep.measured.prompt_tokens) == (512, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_cache_does_not_keep_what_was_filled(console: Console, kind: EngineKind) -> None:
    plan = console.plan(kind, cache_ram_bytes=256 * MIB)
    done = console.run("run", plan, "--proof", "full", "--detach", "--port", str(console.port), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    body = {"prompt": "a b c", "max_tokens": 2}
    assert httpx.post(f"{report['url']}/v1/completions", json=body, trust_env=False).status_code == 200
    assert console.run("stop").returncode == 0
    saved = [int(n) for n in re.findall(r"saving prompt with length (\d+)", Path(report["log"]).read_text())]
    assert saved
    assert max(saved) < 600


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_and_the_speeds_of_a_real_plan(console: Console, cut_model: Path, kind: EngineKind) -> None:
    plan = planned(console, cut_model, kind, 512)
    basis = json.loads(Path(plan).read_text())["memory"]["basis"]
    report, _ = launched(console, plan, "--proof", "full")
    proof = report["proof"]
    lines = {line["part"]: line for line in proof["ledger"]}
    assert {"weights", "kv_cache", "compute", "logits", "overhead", "resident_set"} <= set(lines)
    assert {line["device"] for line in proof["ledger"]} == {"host"}
    for part in ("weights", "kv_cache", "compute", "resident_set"):
        line = lines[part]
        assert line["within_range"] is True, line
        assert line["difference_bytes"] == line["measured_bytes"] - line["forecast_bytes"]
        assert line["basis"] == ("assumed" if part == "resident_set" else basis)
    # K only: 2 layers x 512 tokens x 576 values of 2 bytes.
    assert lines["kv_cache"]["forecast_bytes"] == 2 * 512 * 1152
    assert lines["resident_set"]["measured_bytes"] == report["resident_bytes"]
    for part, missing in (("overhead", "measured_bytes"), ("logits", "forecast_bytes")):
        assert lines[part][missing] is None
        assert lines[part]["why"]
        assert lines[part]["within_range"] is None
    assert proof["warnings"] == []
    assert proof["depth"]["basis"] == "calibrated"
    for line in proof["speeds"]:
        assert line["forecast"]["depth_tokens"] == line["measured"]["depth_tokens"]
        estimate = line["forecast"]["decode_tokens_per_s"]
        assert estimate["low"] < estimate["value"] < estimate["high"]
    assert [line["measured"]["depth_tokens"] for line in proof["speeds"]] == [0, 360]


def test_a_difference_beyond_the_range_is_a_warning_and_no_error(console: Console) -> None:
    path = Path(console.plan(EMBEDDED))
    document = json.loads(path.read_text())
    (row,) = document["memory"]["devices"]
    row["kv_cache_bytes"] //= 2
    path.write_text(json.dumps(document))
    running = console.start("run", str(path), "--proof", "short", "--port", str(console.port))
    wait_until(lambda: "noise" in running.stdout, 60, lambda: running.stderr)
    warning = next(line for line in running.stdout.splitlines() if line.startswith("WARNING: host KV cache"))
    assert "1.1 MiB measured, 0.6 MiB forecast (+0.6 MiB, +99.1 %); the ledger states at most 0.6 MiB" in warning
    end(console, running)


def end(console: Console, running: Foreground) -> None:
    running.popen.send_signal(signal.SIGINT)
    assert running.wait() == 130
    console.wait_for_no_leftovers(10)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_conversations_that_go_wrong_are_told_and_the_engine_serves(
    console: Console, kind: EngineKind, tmp_path: Path
) -> None:
    """Noise in the place of trained weights: a plan that says they are real has the engine asked."""
    console.model = tmp_path / "tiny-with-template.gguf"
    write_tiny(console.model, chat_template=shipped_text("models", "glm-4.7-flash.jinja"))
    path = Path(console.plan(kind, n_ctx=4096))
    document = json.loads(path.read_text())
    document["model"]["synthetic"] = False
    path.write_text(json.dumps(document))
    report, said = launched(console, str(path), "--proof", "short")
    proof = report["proof"]
    trips = (proof["tool_call"], proof["thinking"])
    if kind is EngineKind.LLAMA_CPP_PYTHON:
        assert [trip["passed"] for trip in trips] == [None, None]
        assert "chat_template_kwargs" in trips[0]["why"]
        return
    assert [trip["passed"] for trip in trips] == [False, False]
    assert "no tool call came back" in trips[0]["why"]
    assert "with thinking off, the answer is not 42" in trips[1]["why"]
    assert [f"tool call: {trips[0]['why']}", f"thinking on and off: {trips[1]['why']}"] == proof["warnings"][-2:]
    assert "asking for a tool call" in said


def filling(console: Console, plan: str) -> Foreground:
    """A launch that has begun to fill its whole context."""
    running = console.start("run", plan, "--proof", "full", "--port", str(console.port), "--json")
    wait_until(lambda: "proof: filling" in running.stderr, 120, lambda: running.stderr)
    return running


def engine_pid(console: Console) -> int:
    record = Path(console.environment["GLMPLAN_HOME"]) / "state" / "runs" / f"{console.port}.run.json"
    pid: int = json.loads(record.read_text())["process"]["pid"]
    return pid


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_in_the_middle_of_it_leaves_nothing(console: Console, cut_model: Path, kind: EngineKind) -> None:
    running = filling(console, planned(console, cut_model, kind, 32768))
    assert "--proof full" not in running.stdout
    end(console, running)
    assert running.stdout == ""
    assert "Traceback" not in running.stderr


def test_an_engine_that_dies_of_it_ends_the_launch(console: Console, cut_model: Path) -> None:
    running = filling(console, planned(console, cut_model, EMBEDDED, 32768))
    os.kill(engine_pid(console), signal.SIGABRT)
    assert running.wait(60) == 4
    error = json.loads(running.stdout)["error"]
    assert error["type"] == "EngineExited"
    assert "the engine ended while serving" in error["message"]
    console.wait_for_no_leftovers(10)


def test_memory_that_runs_out_while_filling_is_answered_with_a_smaller_plan(console: Console, cut_model: Path) -> None:
    """The engine's last words are put into its log, and it is killed as the kernel does: the rest is real."""
    running = filling(console, planned(console, cut_model, EMBEDDED, 1024))
    (log,) = (Path(console.environment["GLMPLAN_HOME"]) / "state" / "logs").glob("*.log")
    with log.open("a", encoding="utf-8") as lines:
        lines.write("ggml_aligned_malloc: insufficient memory (attempted to allocate 512.00 MB)\n")
    killed = engine_pid(console)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: running.stdout.rstrip().endswith("}"), 120, lambda: running.stderr)
    report = json.loads(running.stdout)
    (step,) = report["step_downs"]
    assert "insufficient memory" in step["because"]
    assert report["pid"] != killed
    assert report["proof"]["depth"]["filled_tokens"] == 1000
    assert report["proof"]["speeds"][1]["measured"]["depth_tokens"] == 872
    end(console, running)
