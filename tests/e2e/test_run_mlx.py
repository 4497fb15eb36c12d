"""glmplan run --engine mlx-lm with the real server on the CPU, and a tiny model of GLM-4.7-Flash's shape."""

import json
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from console import Console, wait_until
from tiny_mlx import write_tiny_mlx

from glmplan.engine import EngineKind
from glmplan.launchers.health import Readiness, ask
from glmplan.launchers.launch import Endpoint

pytestmark = [pytest.mark.e2e, pytest.mark.runtimes]
KIND = EngineKind.MLX_LM


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx") / "tiny"
    write_tiny_mlx(folder)
    return folder


@pytest.fixture
def shell(tmp_path: Path, weights: Path) -> Iterator[Console]:
    made = Console(tmp_path, weights)
    yield made
    assert made.kill_leftovers() == []


def launched(shell: Console, *words: str) -> dict[str, Any]:
    """The report of a launch in the background."""
    done = shell.run("run", shell.plan(KIND), "--detach", "--port", str(shell.port), "--json", *words)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def listed(shell: Console) -> dict[str, Any]:
    """The one engine that `glmplan status` knows."""
    engines = json.loads(shell.run("status", "--json").stdout)["engines"]
    assert len(engines) == 1
    only: dict[str, Any] = engines[0]
    return only


def test_launch_look_measure_stop(shell: Console) -> None:
    report = launched(shell)
    assert (report["engine"], report["model"]) == ("mlx-lm", "default_model")
    assert report["memory"]["buffers"] == []
    assert "mlx-lm tells no buffer sizes" in report["memory"]["why"]
    assert report["resident_bytes"] > 1_000_000
    assert report["answer"].split()
    assert report["speed"]["prompt_tokens"] == 128
    assert report["speed"]["output_tokens"] == 24
    assert report["speed"]["server_timed"] is False
    assert listed(shell)["state"] == "ready"

    samples = shell.bench_samples(2)
    seen = [(sample["depth_tokens"], sample["prompt_tokens"], sample["output_tokens"]) for sample in samples]
    # A first word that another prompt began with may be in the cache.
    assert all(depth <= 2 and depth + prompt == 64 and output == 8 for depth, prompt, output in seen[:2])
    assert all(depth >= 250 and depth + prompt == 320 for depth, prompt, _ in seen[2:])
    assert all(sample["decode_tokens_per_s"] > 0 for sample in samples)

    assert "Starting httpd" in shell.run("logs").stdout
    assert shell.run("stop").returncode == 0
    shell.wait_for_no_leftovers(5)


def test_bench_launches_a_plan_and_leaves_nothing(shell: Console) -> None:
    words = ("--json", "--depth", "0", "--streams", "1,2", "--prompt-tokens", "64", "--output-tokens", "8")
    done = shell.run("bench", shell.plan(KIND, n_parallel=2), *words, "--repetitions", "1")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["summary"]
    assert [(row["depth_tokens"], row["n_streams"]) for row in rows] == [(0, 1), (0, 2)]
    shell.wait_for_no_leftovers(5)


def test_a_chat_streams_from_the_engine_itself(shell: Console) -> None:
    url = launched(shell)["url"]
    body = {
        "model": "default_model", "stream": True, "max_tokens": 6, "messages": [{"role": "user", "content": "river"}],
    }  # fmt: skip
    pieces: list[str] = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, trust_env=False, timeout=60) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                pieces.append(choice["delta"].get("content") or "")
    assert len("".join(pieces).split()) == 6
    process = psutil.Process(listed(shell)["pid"])
    assert "mlx_lm.server" in " ".join(process.cmdline())
    assert process.environ()["HF_HUB_OFFLINE"] == "1"
    assert shell.run("stop").returncode == 0


def test_in_the_foreground_the_losses_are_named_and_ctrl_c_stops_it(shell: Console) -> None:
    running = shell.start("run", shell.plan(KIND, n_batch=512, n_ubatch=128), "--port", str(shell.port))
    wait_until(lambda: "Ctrl-C stops it" in running.stdout, 60, lambda: running.stderr)
    assert "warning: not expressed: a ubatch of 128: mlx-lm has one step size, 512" in running.stderr
    assert "2048 tokens of context: the cache grows as it likes" in running.stderr
    wait_until(lambda: "tells no buffer sizes" in running.stdout, 30, lambda: running.stdout)
    running.popen.send_signal(signal.SIGINT)
    assert running.wait() == 130
    shell.wait_for_no_leftovers(5)


def test_a_plan_for_llama_server_is_handed_over_with_weights(shell: Console, weights: Path) -> None:
    plan = Path(shell.plan(KIND))
    document = json.loads(plan.read_text())
    document["placement"]["engine"] = "llama-server"
    document["model"]["file"] = "/nowhere/GLM-4.7-Flash-Q4_K_M.gguf"
    plan.write_text(json.dumps(document))
    words = ("run", str(plan), "--engine", "mlx-lm", "--port", str(shell.port), "--json")
    refused = shell.run(*words)
    assert refused.returncode == 4
    assert "no other weights are known for tiny" in json.loads(refused.stdout)["error"]["message"]
    running = shell.start(*words, "--weights", str(weights))
    assert running.report()["engine"] == "mlx-lm"
    kept = json.loads(next((Path(shell.environment["GLMPLAN_HOME"]) / "state/runs").glob("*.plan.json")).read_text())
    assert kept["placement"]["engine"] == "mlx-lm"
    assert kept["model"]["file"] == str(weights)
    running.popen.terminate()
    assert running.wait() == 128 + signal.SIGTERM
    shell.wait_for_no_leftovers(5)


def test_it_is_started_again_when_killed_and_when_it_stops_computing(shell: Console) -> None:
    url = launched(shell)["url"]
    first = listed(shell)["pid"]
    psutil.Process(first).kill()
    wait_until(lambda: listed(shell)["restarts"] == 1, 30, lambda: shell.run("logs").stdout)
    wait_until(lambda: "answers again" in shell.run("logs").stdout, 60, lambda: shell.run("logs").stdout)
    second = listed(shell)["pid"]
    assert second != first
    # More candidates than there are tokens: its thread of computation dies, its process stays.
    body = {"prompt": "river", "max_tokens": 2, "temperature": 1.0, "top_k": 100_000}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{url}/v1/completions", json=body, trust_env=False, timeout=30)
    wait_until(lambda: listed(shell)["restarts"] == 2, 60, lambda: shell.run("logs").stdout)
    wait_until(lambda: shell.run("logs").stdout.count("answers again") == 2, 60, lambda: shell.run("logs").stdout)
    assert "it stopped computing" in listed(shell)["last_reason"]
    assert shell.run("stop").returncode == 0
    shell.wait_for_no_leftovers(5)


def test_no_orphan_when_glmplan_is_killed(shell: Console) -> None:
    running = shell.start("run", shell.plan(KIND), "--port", str(shell.port), "--json")
    running.report()
    running.popen.kill()
    running.wait()
    shell.wait_for_no_leftovers(5)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("truncated", "it cannot read the model file"),
        ("missing tensors", "it cannot read the model file"),
        ("unknown architecture", "this version does not know the model's architecture"),
        ("no tokenizer", "it stopped computing"),
    ],
)
def test_weights_that_cannot_be_loaded_are_told_with_the_reason(
    shell: Console, weights: Path, fault: str, said: str
) -> None:
    broken = shell.folder / "broken"
    shutil.copytree(weights, broken)
    config = json.loads((broken / "config.json").read_text())
    if fault == "truncated":
        with (broken / "model.safetensors").open("r+b") as stream:
            stream.truncate(600_000)
    elif fault == "no tokenizer":
        (broken / "tokenizer.json").unlink()
    else:
        config |= {"num_hidden_layers": 4} if fault == "missing tensors" else {"model_type": "martian"}
        (broken / "config.json").write_text(json.dumps(config))
    done = shell.run(
        "run", shell.plan(KIND), "--weights", str(broken), "--port", str(shell.port), "--no-restart", "--json"
    )
    assert done.returncode == 4, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "EngineExited"
    assert said in error["message"]
    shell.wait_for_no_leftovers(5)


def test_plans_for_it_keep_to_what_it_can_do_and_say_whose_numbers_they_are(shell: Console) -> None:
    planned = shell.run("plan", "--engine", "mlx-lm", "--quant", "q4_K_M", "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["placement"]["engine"], plan["placement"]["cache_type_k"]) == ("mlx-lm", "f16")
    assert any("are llama.cpp's: mlx-lm may differ" in warning for warning in plan["warnings"])


def test_what_it_cannot_do_is_refused_before_anything_starts(shell: Console) -> None:
    quantised = shell.run("run", shell.plan(KIND, cache_type_k="q8_0", cache_type_v="q8_0"), "--json")
    assert "a KV cache of q8_0" in json.loads(quantised.stdout)["error"]["message"]
    open_to_all = shell.run("run", shell.plan(KIND), "--host", "0.0.0.0", "--json")
    assert "cannot be given an API key" in json.loads(open_to_all.stdout)["error"]["message"]
    tuned = shell.run("tune", shell.plan(KIND), "--json")
    assert tuned.returncode == 2
    assert "turns knobs of llama.cpp" in json.loads(tuned.stdout)["error"]["message"]
    assert shell.leftovers() == []


def test_dry_run_prints_a_command_that_works_as_it_stands(shell: Console) -> None:
    done = shell.run("run", shell.plan(KIND), "--dry-run", "--port", str(shell.port))
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    command = [word for word in words if not word.startswith(("HF_", "PYTHON"))]
    engine = subprocess.Popen(
        command, env=shell.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(
            lambda: ask(Endpoint(port=shell.port), "/health").readiness is Readiness.READY, 30, lambda: done.stdout
        )
    finally:
        engine.kill()
        engine.wait(10)
