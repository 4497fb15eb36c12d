"""glmplan run --engine ollama against a program and daemon that are played (tests/gguf/ollama_daemon.py)."""

import datetime
import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama_daemon
import psutil
import pytest
from console import Console, this_machine, wait_until, words_of

from glmplan.engine import EngineKind
from glmplan.jsonio import dumps
from glmplan.launchers.ollama import MODEL
from glmplan.launchers.ollama_api import OllamaDaemon
from glmplan.launchers.port import free_port

pytestmark = pytest.mark.e2e
KIND = EngineKind.OLLAMA


class Ollama:
    """The played program on the PATH of a test, its store, and where a daemon is looked for."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "ollama-models"
        self.models.mkdir()
        self.port = free_port("127.0.0.1")
        self.daemon = OllamaDaemon(f"http://127.0.0.1:{self.port}")
        self.program = folder / "bin" / "ollama"
        self.program.parent.mkdir()
        self.program.write_text(f'#!/bin/sh\nexec {sys.executable} {ollama_daemon.__file__} "$@"\n')
        self.program.chmod(0o755)

    def play(self, **script: Any) -> None:
        (self.models / "played.json").write_text(json.dumps(script))

    def pushed(self) -> int:
        file = self.models / "pushed"
        return len(file.read_text().splitlines()) if file.is_file() else 0


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ollama:
    made = Ollama(tmp_path)
    monkeypatch.setenv("PATH", f"{made.program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{made.port}")
    monkeypatch.setenv("OLLAMA_MODELS", str(made.models))
    this_machine.cache_clear()
    return made


@pytest.fixture
def shell(ollama: Ollama, tiny_gguf: Path) -> Iterator[Console]:
    made = Console(ollama.models.parent, tiny_gguf)
    yield made
    assert made.kill_leftovers() == []


@pytest.fixture
def running(ollama: Ollama) -> Iterator[Ollama]:
    """A daemon of somebody else's."""
    daemon = subprocess.Popen([str(ollama.program), "serve"], stderr=subprocess.DEVNULL)
    wait_until(lambda: ollama.daemon.version() is not None, 60, lambda: "it does not come up")
    yield ollama
    daemon.terminate()
    daemon.wait(10)


def launched(shell: Console, plan: str, *words: str) -> tuple[dict[str, Any], str]:
    """The report of a launch in the background, and what was said."""
    done = shell.run("run", plan, "--detach", "--port", str(shell.port), "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def refused(shell: Console, plan: str, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the error of a launch."""
    done = shell.run("run", plan, "--port", str(shell.port), "--no-restart", "--json", *words)
    return done.returncode, json.loads(done.stdout)["error"]


def listed(shell: Console) -> dict[str, Any]:
    only: dict[str, Any] = json.loads(shell.run("status", "--json").stdout)["engines"][0]
    return only


def test_a_daemon_that_runs_is_used_and_stays(shell: Console, running: Ollama) -> None:
    report, said = launched(shell, shell.plan(KIND, n_parallel=2, cache_type_k="q8_0", cache_type_v="q8_0"))
    assert (report["url"], report["model"]) == (running.daemon.url, MODEL)
    assert f"the Ollama that runs at {running.daemon.url} is used" in said
    assert "warning: not expressed: KV cache q8_0: set it in the server's environment" in said
    assert "warning: not expressed: 2 slots" in said
    assert report["proof"]["warnings"] == []
    assert report["memory"]["total_bytes"] == 2_600_000
    assert report["memory"]["why"] == "Ollama tells sums, no buffer sizes"
    assert report["resident_bytes"] is None
    assert report["answer"].split()[:2] == ["word0", "word1"]
    assert report["engine_version"] == ollama_daemon.VERSION
    held = running.daemon.loaded(MODEL)
    assert held is not None
    assert held.n_ctx == 1024  # of one slot
    assert listed(shell)["state"] == "ready"

    samples = shell.bench_samples(1)
    assert [sample["output_tokens"] for sample in samples] == [8, 8]
    assert samples[0]["depth_tokens"] == 0
    assert samples[1]["depth_tokens"] >= 250
    assert all(64 <= sample["prompt_tokens"] <= 64 + 6 for sample in samples)  # a template is part of them

    assert shell.run("stop").returncode == 0
    shell.wait_for_no_leftovers(5)
    assert running.daemon.loaded(MODEL) is None
    assert running.daemon.version() == ollama_daemon.VERSION
    assert running.pushed() == 1


def test_bench_launches_a_plan_and_leaves_nothing(shell: Console, running: Ollama) -> None:
    words = ("--json", "--depth", "0", "--prompt-tokens", "64", "--output-tokens", "8", "--repetitions", "1")
    done = shell.run("bench", shell.plan(KIND), *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measurement"]["engine"] == "ollama"
    assert json.loads(done.stdout)["measurement"]["resident_bytes"] is None
    shell.wait_for_no_leftovers(5)
    assert running.daemon.loaded(MODEL) is None


def test_the_file_is_copied_once(shell: Console, running: Ollama) -> None:
    for _ in range(2):
        launched(shell, shell.plan(KIND))
        assert shell.run("stop").returncode == 0
    assert running.pushed() == 1
    made = json.loads((running.models / "models.json").read_text())[MODEL]
    assert made["parameters"]["num_ctx"] == 2048
    assert made["parameters"]["use_mmap"] is True
    assert (made["renderer"], made["parser"]) == ("glm-4.7", "glm-4.7")


def test_without_a_daemon_its_own_is_started_with_the_plans_environment(shell: Console, ollama: Ollama) -> None:
    report, said = launched(shell, shell.plan(KIND, cache_type_k="q8_0", cache_type_v="q8_0", n_cpu_moe=2))
    assert report["url"] == f"http://127.0.0.1:{shell.port}"
    assert "KV cache q8_0" not in said
    assert "LLAMA_ARG_N_CPU_MOE: read by the llama-server inside Ollama" in said
    assert report["resident_bytes"] > 1_000_000
    server = next(process for process in shell.leftovers() if "serve" in words_of(process)[-1:])
    environment = server.environ()
    assert environment["OLLAMA_HOST"] == f"127.0.0.1:{shell.port}"
    assert environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert environment["LLAMA_ARG_N_CPU_MOE"] == "2"
    assert environment["OLLAMA_MODELS"] == str(ollama.models)
    assert shell.run("stop").returncode == 0
    shell.wait_for_no_leftovers(5)


@pytest.mark.parametrize("victim", ["glmplan", "its child"])
def test_no_daemon_of_its_own_outlives_it(shell: Console, victim: str) -> None:
    running = shell.start("run", shell.plan(KIND), "--port", str(shell.port), "--json", "--no-restart")
    pid = running.report()["pid"]
    assert len(shell.leftovers()) >= 3
    if victim == "glmplan":
        running.popen.kill()
    else:
        psutil.Process(pid).kill()
    running.wait()
    shell.wait_for_no_leftovers(5)


def test_a_daemon_lets_go_of_the_model_when_glmplan_is_killed(shell: Console, running: Ollama) -> None:
    watched = shell.start("run", shell.plan(KIND), "--port", str(shell.port), "--json")
    watched.report()
    watched.popen.kill()
    watched.wait()
    shell.wait_for_no_leftovers(5)
    assert running.daemon.loaded(MODEL) is not None
    with urllib.request.urlopen(f"{running.daemon.url}/api/ps") as answer:
        until = json.load(answer)["models"][0]["expires_at"]
    left = datetime.datetime.fromisoformat(until) - datetime.datetime.now(datetime.UTC)
    assert left < datetime.timedelta(minutes=5)  # nobody renews it; a request of a client keeps it for five minutes


def test_a_model_that_is_unloaded_is_loaded_again(shell: Console, running: Ollama) -> None:
    launched(shell, shell.plan(KIND))
    running.daemon.unload(MODEL)
    wait_until(lambda: listed(shell)["restarts"] == 1, 60, lambda: shell.run("logs").stdout)
    wait_until(lambda: running.daemon.loaded(MODEL) is not None, 60, lambda: shell.run("logs").stdout)
    assert "has unloaded" in listed(shell)["last_reason"]
    assert shell.run("stop").returncode == 0


def test_a_daemon_of_its_own_that_dies_is_started_again(shell: Console, ollama: Ollama) -> None:
    launched(shell, shell.plan(KIND))
    next(process for process in shell.leftovers() if "serve" in words_of(process)[-1:]).kill()
    wait_until(lambda: "answers again" in shell.run("logs").stdout, 60, lambda: shell.run("logs").stdout)
    assert OllamaDaemon(f"http://127.0.0.1:{shell.port}").loaded(MODEL) is not None
    assert "ollama serve ended" in listed(shell)["last_reason"]
    assert ollama.pushed() == 1
    assert shell.run("stop").returncode == 0
    shell.wait_for_no_leftovers(5)


def on_gpu(shell: Console) -> str:
    """A plan whose ledger has everything on a GPU."""
    path = Path(shell.plan(KIND, n_gpu_layers=3))
    document = json.loads(path.read_text())
    document["memory"]["devices"][0]["id"] = "gpu0"
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            {"gpu_bytes": 2_000_000, "total_bytes": 4_000_000},
            "Ollama holds 1.9 MiB of 3.8 MiB in GPU memory (50%), planned were 4.0 MiB of 4.0 MiB (100%): the rest is",
        ),
        (
            {"gpu_bytes": 4_000_000, "total_bytes": 4_000_000, "context": 1024},
            "Ollama loaded 1024 tokens of context, planned were 2048",
        ),
        (
            {"gpu_bytes": 2**30, "total_bytes": 2**30},
            "Ollama holds 1.0 GiB, 1020.0 MiB more than planned",
        ),
    ],
)
def test_a_model_that_sits_elsewhere_than_planned_is_told(
    shell: Console, running: Ollama, script: dict[str, Any], said: str
) -> None:
    running.play(**script)
    report, _ = launched(shell, on_gpu(shell))
    assert len(report["proof"]["warnings"]) == 1
    assert said in report["proof"]["warnings"][0]
    assert shell.run("stop").returncode == 0


def test_out_of_memory_is_ollamas_own_word(shell: Console, running: Ollama) -> None:
    running.play(load="out-of-memory")
    status, error = refused(shell, shell.plan(KIND))
    assert status == 4
    assert error["facts"]["cause"] == "out-of-memory"
    assert error["facts"]["device"] == "gpu0"
    assert "cudaMalloc failed: out of memory" in error["message"]
    shell.wait_for_no_leftovers(5)


def test_a_store_without_room_for_the_copy(shell: Console, running: Ollama) -> None:
    running.play(room=1_000_000)
    status, error = refused(shell, shell.plan(KIND))
    assert (status, error["facts"]["cause"]) == (4, "disk-full")
    assert "Ollama refused a copy of the file (HTTP 500): write" in error["message"]
    shell.wait_for_no_leftovers(5)


@pytest.mark.parametrize("own", [True, False])
def test_a_daemon_that_dies_while_it_loads(
    shell: Console, ollama: Ollama, own: bool, request: pytest.FixtureRequest
) -> None:
    if not own:
        request.getfixturevalue("running")
    ollama.play(load="dies")
    status, error = refused(shell, shell.plan(KIND))
    assert status == 4
    assert "does not answer POST /api/generate" in "\n".join(error["facts"]["log_tail"])
    shell.wait_for_no_leftovers(5)


def test_versions(shell: Console, running: Ollama) -> None:
    running.play(version="0.14.2")
    status, error = refused(shell, shell.plan(KIND), "--force")
    assert (status, error["type"]) == (4, "EngineTooOld")
    assert "Ollama 0.14.2 cannot run this model" in error["message"]
    running.play(version="0.15.6")
    _, said = launched(shell, shell.plan(KIND), "--force")
    assert "Ollama 0.15.6 keeps a V cache beside the latent keys, about 1.9 times the KV cache" in said
    assert shell.run("stop").returncode == 0


def test_two_launches_cannot_share_a_daemon(shell: Console, running: Ollama) -> None:
    launched(shell, shell.plan(KIND))
    status, error = refused(shell, shell.plan(KIND))
    assert (status, error["type"]) == (4, "PortTaken")
    assert running.daemon.loaded(MODEL) is not None
    assert shell.run("stop").returncode == 0


def test_what_is_missing_is_told(shell: Console, ollama: Ollama) -> None:
    plan = shell.plan(KIND)
    shell.environment["OLLAMA_HOST"] = "192.0.2.7"
    status, error = refused(shell, plan)
    assert status == 2
    assert "OLLAMA_HOST=192.0.2.7 is another machine" in error["message"]
    shell.environment["OLLAMA_HOST"] = f"127.0.0.1:{ollama.port}"
    ollama.program.unlink()
    status, error = refused(shell, plan)
    assert (status, error["type"]) == (4, "EngineNotFound")
    assert "install Ollama 0.30 or newer" in error["hint"]


def test_dry_run_prints_a_command_that_works_as_it_stands(shell: Console, running: Ollama) -> None:
    done = shell.run("run", shell.plan(KIND), "--dry-run")
    assert done.returncode == 0, done.stderr
    child = subprocess.Popen(shlex.split(done.stdout), env=shell.environment, stderr=subprocess.PIPE)
    wait_until(lambda: running.daemon.loaded(MODEL) is not None, 60, lambda: "nothing was loaded")
    child.terminate()
    assert child.wait(10) == 0
    assert child.stderr is not None
    child.stderr.close()
    assert running.daemon.loaded(MODEL) is None


def test_a_plan_for_llama_server_is_handed_over(shell: Console, running: Ollama) -> None:
    path = Path(shell.plan(KIND))
    document = json.loads(path.read_text())
    document["placement"]["engine"] = "llama-server"
    path.write_text(dumps(document))
    report, _ = launched(shell, str(path), "--engine", "ollama")
    assert report["engine"] == "ollama"
    assert running.daemon.loaded(MODEL) is not None
    assert shell.run("stop").returncode == 0
