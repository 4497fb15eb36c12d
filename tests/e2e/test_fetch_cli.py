"""`glmplan fetch` as a person and a script call it, against a real hub on this machine."""

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import build_gguf as b
import pytest
from console import SCRIPT, Console, wait_until
from hub_server import COMMIT, HubServer, hub_serving
from launch_plans import plan_of

from glmplan import jsonio
from glmplan.engine import EngineKind

pytestmark = pytest.mark.e2e
REPO: Final = "unsloth/GLM-4.7-Flash-GGUF"
FILE: Final = "GLM-4.7-Flash-Q4_K_M.gguf"
REFERENCE: Final = f"hf:{REPO}/{FILE}"
CONTENT: Final = b.build({"general.architecture": "deepseek2"}, [b.TensorSpec("token_embd.weight", b.F32, (64, 4000))])
TOKEN: Final = "hf_" + "s" * 34


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_serving({f"{REPO}/{FILE}": CONTENT}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
        yield server


def glmplan(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(SCRIPT), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def cache() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "huggingface" / "hub"


def repository() -> Path:
    return cache() / f"models--{REPO.replace('/', '--')}"


def snapshot() -> Path:
    return repository() / "snapshots" / COMMIT / FILE


def slow_fetch(hub: HubServer) -> "subprocess.Popen[str]":
    """A fetch that is in the middle of the file."""
    hub.pause_s = 0.05
    child = subprocess.Popen(
        [str(SCRIPT), "fetch", REFERENCE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: hub.sent_bytes > 200_000, 30, lambda: f"sent {hub.sent_bytes}")
    return child


def partial_bytes() -> int:
    return sum(path.stat().st_size for path in repository().glob("blobs/*.incomplete"))


def test_the_path_is_the_answer(hub: HubServer) -> None:
    done = glmplan("fetch", "--quant", "q4_k_m")
    assert (done.returncode, done.stdout) == (0, f"{snapshot()}\n")
    assert snapshot().read_bytes() == CONTENT
    assert f"{REFERENCE} from {hub.url}" in done.stderr
    assert "verified" in done.stderr
    assert TOKEN not in done.stderr


def test_a_copy_that_is_here_is_used_in_place_without_the_network(hub: HubServer) -> None:
    glmplan("fetch", REFERENCE)
    asked = len(hub.asked)
    for words in (("fetch", REFERENCE), ("fetch", "--quant", "q4_K_M", "--offline")):
        done = glmplan(*words, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        assert (document["schema"], document["path"]) == ("glmplan/fetch/1", str(snapshot()))
        assert (document["store"], document["files"][0]["fetched_bytes"]) == ("huggingface", 0)
        assert "already here in the huggingface store" in done.stderr
    assert len(hub.asked) == asked


def test_update_asks_the_hub(hub: HubServer) -> None:
    glmplan("fetch", REFERENCE)
    hub.commit = "c" * 40
    document = json.loads(glmplan("fetch", REFERENCE, "--update", "--json").stdout)
    assert document["files"][0]["fetched_bytes"] == 0  # the same bytes under a new commit
    assert document["path"] == str(repository() / "snapshots" / hub.commit / FILE)
    assert (repository() / "refs" / "main").read_text() == hub.commit


@pytest.mark.parametrize(("words", "variables"), [(("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"})])
def test_offline_asks_nobody(hub: HubServer, words: tuple[str, ...], variables: dict[str, str]) -> None:
    done = glmplan("fetch", REFERENCE, "--json", *words, **variables)
    assert done.returncode == 2
    assert "network is not to be used" in json.loads(done.stdout)["error"]["message"]
    assert hub.asked == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("hf:nonsense",), "does not name a file"),
        (("hf:a/b/../../x.gguf",), "does not name a file"),
        (("--quant", "q99"), "known: q4_K_M, q8_0, bf16"),
        ((REFERENCE, "--quant", "q8_0"), "give one of them"),
        (("https://example.invalid/x.gguf",), "no file of the model hub"),
        (("absent.plan.json",), "cannot read the plan"),
    ],
)
def test_what_cannot_be_meant_is_bad_input(hub: HubServer, words: tuple[str, ...], says: str) -> None:
    done = glmplan("fetch", *words, "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert says in error["message"] + error["hint"]
    assert hub.asked == []


def test_errors_keep_secrets(hub: HubServer) -> None:
    hub.hub_status = [401]
    done = glmplan("fetch", REFERENCE, "--json")
    assert done.returncode == 2
    assert TOKEN not in done.stdout + done.stderr
    hub.faults = ["wrong_bytes"]
    done = glmplan("fetch", REFERENCE, "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["type"]) == (1, "FetchError")
    assert "secret" not in done.stdout + done.stderr
    assert not snapshot().exists()


def test_kill_9_midway_and_again(hub: HubServer) -> None:
    with slow_fetch(hub) as child:
        child.kill()
    have = partial_bytes()
    assert 0 < have < len(CONTENT)
    assert not snapshot().exists()
    hub.pause_s = 0
    document = json.loads(glmplan("fetch", REFERENCE, "--json").stdout)
    assert hub.stored[-1].range == f"bytes={have}-"
    assert document["files"][0]["resumed_from_bytes"] == have
    assert snapshot().read_bytes() == CONTENT


def test_a_disk_that_takes_no_more_is_said_and_the_rest_comes_later(hub: HubServer) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    program = f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(SCRIPT), "fetch", REFERENCE, "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (1, "FetchError")
    assert "cannot write to the model cache" in error["message"]
    assert partial_bytes() == 400_000
    assert not snapshot().exists()
    assert glmplan("fetch", REFERENCE).returncode == 0
    assert hub.stored[-1].range == "bytes=400000-"
    assert snapshot().read_bytes() == CONTENT


def test_ctrl_c_keeps_what_has_come(hub: HubServer) -> None:
    with slow_fetch(hub) as child:
        child.send_signal(signal.SIGINT)
        _, talk = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "the same command goes on from there" in talk
    assert "Traceback" not in talk
    assert partial_bytes() > 100_000


def test_two_at_once_fetch_one_file(hub: HubServer) -> None:
    with slow_fetch(hub) as first:
        second = subprocess.Popen(
            [str(SCRIPT), "fetch", REFERENCE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        out, talk = second.communicate(timeout=60)
        first_out, _ = first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert out == first_out == f"{snapshot()}\n"
    assert "another program is fetching this very file" in talk
    assert len(hub.stored) == 1


def test_a_stalling_store_is_left_and_asked_again(hub: HubServer) -> None:
    hub.faults = ["stalls"]
    began = time.monotonic()
    done = glmplan("fetch", REFERENCE)
    assert done.returncode == 0
    assert "stopped sending; trying again" in done.stderr
    assert time.monotonic() - began < 15


def test_a_terminal_gets_one_line_and_a_pipe_none(hub: HubServer) -> None:
    hub.pause_s = 0.05
    mine, theirs = pty.openpty()
    with subprocess.Popen([str(SCRIPT), "fetch", REFERENCE], stdout=subprocess.DEVNULL, stderr=theirs) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(mine, 65536)
            except OSError:  # the other end is closed
                break
        assert child.wait(30) == 0
    os.close(mine)
    assert b"MiB/s" in shown
    assert b"\r\x1b[K" in shown
    assert shown.count(b"\n") == 2  # what is fetched, and what came of it
    hub.pause_s = 0
    assert "\r" not in glmplan("fetch", REFERENCE, "--update").stderr


def test_run_names_the_command_and_fetch_brings_the_file(hub: HubServer, console: Console) -> None:
    path = Path(console.plan(EngineKind.XLLAMACPP))
    document = json.loads(path.read_text())
    document["model"] |= {"name": "glm-4.7-flash", "quantization": "q4_K_M", "synthetic": False}
    document["model"] |= {"file": "glm-4.7-flash:q4_K_M", "file_bytes": len(CONTENT)}
    path.write_text(json.dumps(document))
    done = console.run("run", str(path), "--port", str(console.port), "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert error["hint"] == "glmplan fetch --quant q4_K_M"
    assert hub.asked == []
    assert glmplan("fetch", str(path)).stdout == f"{snapshot()}\n"
    shown = console.run("run", str(path), "--port", str(console.port), "--dry-run")
    configuration = Path(shown.stdout.split()[-1]).read_text()
    assert str(snapshot()) in configuration


def test_run_fetch_goes_all_the_way(hub: HubServer, console: Console) -> None:
    hub.files[f"{REPO}/{FILE}"] = console.model.read_bytes()
    path = Path(console.plan(EngineKind.XLLAMACPP))
    document = json.loads(path.read_text())
    document["model"] |= {"file": REFERENCE}
    path.write_text(json.dumps(document))
    running = console.start("run", str(path), "--fetch", "--port", str(console.port), "--json")
    report = running.report()
    assert report["answer"]
    assert f"{REFERENCE} from {hub.url}" in running.stderr
    running.popen.send_signal(signal.SIGINT)
    assert running.wait() == 130
    console.wait_for_no_leftovers(10)


def test_a_plan_for_a_file_that_is_here_says_where(console: Console) -> None:
    plan = plan_of(console.model, EngineKind.XLLAMACPP)
    path = console.folder / "plan.json"
    path.write_text(jsonio.dumps(plan))
    done = console.run("fetch", str(path), "--json")
    document = json.loads(done.stdout)
    assert (document["path"], document["store"]) == (str(console.model), None)
    gone = dataclasses.replace(plan, model=dataclasses.replace(plan.model, file=str(console.folder / "gone.gguf")))
    path.write_text(jsonio.dumps(gone))
    done = console.run("fetch", str(path), "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["type"] in {"ProfileError", "InputError"}


def test_help_is_quick_and_needs_no_http_library() -> None:
    code = "import sys, glmplan.commands.fetch; print('httpx' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False\n"
