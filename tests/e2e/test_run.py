"""glmplan run, status, bench, logs and stop with real engines and a tiny model."""

import json
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from console import Console, this_machine, wait_until

from glmplan.engine import EngineKind
from glmplan.launchers.health import Readiness, ask
from glmplan.launchers.launch import Endpoint
from glmplan.measurement import ROUNDING_BYTES

pytestmark = pytest.mark.e2e
KINDS = [
    EngineKind.XLLAMACPP,
    pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled),
    pytest.param(EngineKind.LLAMA_CPP_PYTHON, marks=pytest.mark.compiled),
]


def document(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The one JSON document on standard output."""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_launch_look_measure_stop(console: Console, kind: EngineKind) -> None:
    port = str(console.port)
    started = console.run("run", console.plan(kind), "--detach", "--port", port, "--json")
    assert started.returncode == 0, started.stderr
    report = document(started)
    assert report["schema"] == "glmplan/launch/1"
    kinds = {buffer["kind"]: buffer["n_bytes"] for buffer in report["memory"]["buffers"]}
    # 3 layers x 2048 cells x (64 latent + 32 rope) x 2 bytes, and the size of all tensors.
    assert abs(kinds["kv"] - 3 * 2048 * 96 * 2) <= ROUNDING_BYTES
    assert abs(kinds["model"] - 1_301_440) <= ROUNDING_BYTES
    assert report["speed"]["decode_tokens_per_s"] > 0
    assert report["speed"]["server_timed"] is (kind is not EngineKind.LLAMA_CPP_PYTHON)
    assert report["resident_bytes"] > 1_300_234
    assert report["synthetic"] is True
    assert report["load_ms"] > 0

    listed = document(console.run("status", "--json"))
    assert listed["schema"] == "glmplan/status/1"
    assert [(engine["pid"], engine["state"], engine["detached"]) for engine in listed["engines"]] == [
        (report["pid"], "ready", True)
    ]
    assert kind.value in console.run("status").stdout

    measured = console.run(
        "bench", "--json", "--depth", "0,256", "--prompt-tokens", "64", "--output-tokens", "8", "--repetitions", "2"
    )
    assert measured.returncode == 0, measured.stderr
    bench = document(measured)
    assert bench["schema"] == "glmplan/bench/1"
    assert [(row["depth_tokens"], row["samples"]) for row in bench["summary"]] == [(0, 2), (256, 2)]
    assert {row["decode_tokens_per_s"]["basis"] for row in bench["summary"]} == {"measured"}
    depths = [sample["depth_tokens"] for sample in bench["measurement"]["samples"]]
    assert depths[:2] == [0, 0]
    assert all(240 <= depth <= 256 for depth in depths[2:])
    assert bench["measurement"]["machine_fingerprint"] == this_machine(kind).fingerprint
    assert bench["measurement"]["memory"]["buffers"]
    assert bench["measurement"]["placement"]["n_ctx"] == 2048
    assert bench["measurement"]["file"]["n_bytes"] == console.model.stat().st_size

    log = console.run("logs").stdout
    assert "KV buffer size" in log
    stopped = console.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    console.wait_for_no_leftovers(1)
    assert document(console.run("status", "--json"))["engines"] == []
    assert console.run("logs").stdout.startswith(log[:200])


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_foreground_until_ctrl_c(console: Console, kind: EngineKind) -> None:
    running = console.start("run", console.plan(kind), "--port", str(console.port))
    wait_until(lambda: "Ctrl-C stops it" in running.stdout, 60, lambda: running.stderr)
    wait_until(lambda: "noise" in running.stdout, 10, lambda: running.stdout)
    assert ask(Endpoint(port=console.port), "/v1/models").readiness is Readiness.READY
    for label in ("weights", "KV cache", "(computed)", "resident set", "prefill", "(assumed)", "measured"):
        assert label in running.stdout
    running.popen.send_signal(signal.SIGINT)
    assert running.wait() == 130
    console.wait_for_no_leftovers(1)
    assert document(console.run("status", "--json"))["engines"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_order(console: Console, number: signal.Signals) -> None:
    running = console.start("run", console.plan(EngineKind.XLLAMACPP), "--port", str(console.port), "--json")
    running.report()
    running.popen.send_signal(number)
    assert running.wait() == 128 + number
    console.wait_for_no_leftovers(1)


def test_stop_ends_the_glmplan_that_watches_too(console: Console) -> None:
    running = console.start("run", console.plan(EngineKind.XLLAMACPP), "--port", str(console.port), "--json")
    running.report()
    assert console.run("stop", "--port", str(console.port)).returncode == 0
    assert running.wait() == 128 + signal.SIGTERM
    console.wait_for_no_leftovers(1)


def test_dry_run_prints_a_command_that_works_as_it_stands(console: Console) -> None:
    done = console.run("run", console.plan(EngineKind.XLLAMACPP), "--dry-run", "--port", str(console.port))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert console.leftovers() == []
    engine = subprocess.Popen(shlex.split(done.stdout), env=console.environment, stderr=subprocess.DEVNULL)
    try:
        endpoint = Endpoint(port=console.port)
        wait_until(lambda: ask(endpoint, "/health").readiness is Readiness.READY, 30, lambda: done.stdout)
    finally:
        engine.terminate()
        assert engine.wait(10) == 0


@pytest.mark.compiled
def test_dry_run_of_llama_server_is_one_quoted_line(console: Console) -> None:
    plan = console.plan(EngineKind.LLAMA_SERVER, n_cpu_moe=0)
    done = console.run("run", plan, "--dry-run", "--port", str(console.port))
    assert done.returncode == 0, done.stderr
    words = [word for word in shlex.split(done.stdout) if "=" not in word.split("/")[0]]
    assert words[0].endswith("llama-server")
    assert words[words.index("--fit") + 1] == "off"
    assert done.stderr == ""


def test_bench_launches_a_plan_and_leaves_nothing(console: Console) -> None:
    plan = console.plan(EngineKind.XLLAMACPP)
    done = console.run("bench", plan, "--json", "--prompt-tokens", "64", "--output-tokens", "8", "--repetitions", "1")
    assert done.returncode == 0, done.stderr
    assert document(done)["measurement"]["load_ms"] > 0
    console.wait_for_no_leftovers(1)
    kept = list((Path(console.environment["GLMPLAN_HOME"]) / "data" / "measurements").glob("*.jsonl"))
    assert [path.stem for path in kept] == [this_machine(EngineKind.XLLAMACPP).fingerprint]
    deep = console.run("bench", plan, "--json", "--depth", "2k")
    assert deep.returncode == 6
    assert document(deep)["error"]["type"] == "BenchError"


def test_bench_of_an_address(console: Console) -> None:
    report = document(
        console.run("run", console.plan(EngineKind.XLLAMACPP), "--detach", "--port", str(console.port), "--json")
    )
    done = console.run("bench", report["url"] + "/v1", "--json", "--prompt-tokens", "32", "--output-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert document(done)["url"] == report["url"]
    assert console.run("stop", "--all").returncode == 0
    gone = console.run("bench", report["url"])
    assert gone.returncode == 6
    assert "no server answers" in gone.stderr


def test_other_machines_need_the_key_that_is_shown_once(console: Console) -> None:
    plan = console.plan(EngineKind.XLLAMACPP)
    done = console.run("run", plan, "--detach", "--host", "0.0.0.0", "--port", str(console.port), "--json")
    assert done.returncode == 0, done.stderr
    report = document(done)
    key = Path(report["api_key_file"]).read_text().strip()
    assert len(key) >= 32
    assert done.stderr.count(key) == 1
    url = f"{report['url']}/v1/completions"
    body = {"prompt": "a", "max_tokens": 1}
    assert httpx.post(url, json=body, trust_env=False).status_code == 401
    allowed = httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    assert allowed.status_code == 200

    process = psutil.Process(report["pid"])
    assert key not in " ".join(process.cmdline())
    home = Path(console.environment["GLMPLAN_HOME"])
    holders = [path for path in home.rglob("*") if path.is_file() and key in path.read_text(errors="replace")]
    assert holders == [Path(report["api_key_file"])]
    assert oct(holders[0].stat().st_mode & 0o777) == "0o600"
    assert document(console.run("status", "--json"))["engines"][0]["state"] == "ready"
    assert console.run("bench", "--repetitions", "1", "--prompt-tokens", "8", "--output-tokens", "2").returncode == 0
    assert console.run("stop").returncode == 0
    assert not holders[0].exists()


@pytest.mark.compiled
@pytest.mark.parametrize("kind", [EngineKind.LLAMA_SERVER, EngineKind.LLAMA_CPP_PYTHON])
def test_a_given_key_reaches_compiled_engines_without_their_command_line(console: Console, kind: EngineKind) -> None:
    console.environment["GLMPLAN_API_KEY"] = "given-secret"
    done = console.run("run", console.plan(kind), "--detach", "--port", str(console.port), "--json")
    assert done.returncode == 0, done.stderr
    report = document(done)
    assert httpx.get(f"{report['url']}/v1/completions", trust_env=False).status_code in {401, 405}
    body = {"prompt": "a", "max_tokens": 1}
    assert httpx.post(f"{report['url']}/v1/completions", json=body, trust_env=False).status_code == 401
    assert "given-secret" not in " ".join(psutil.Process(report["pid"]).cmdline())
    assert "given-secret" not in Path(report["log"]).read_text()
    assert "given-secret" not in done.stdout + done.stderr
    assert console.run("stop").returncode == 0


def test_the_log_can_be_followed_to_the_engines_end(console: Console) -> None:
    plan = console.plan(EngineKind.XLLAMACPP)
    assert console.run("run", plan, "--detach", "--port", str(console.port)).returncode == 0
    follower = console.start("logs", "-f")
    wait_until(lambda: "listening" in follower.stdout, 10, lambda: follower.stdout)
    assert follower.popen.poll() is None
    assert console.run("stop").returncode == 0
    assert follower.wait(10) == 0
    assert "stopped serving http://127.0.0.1:" in follower.stdout
