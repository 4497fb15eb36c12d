"""What goes wrong, provoked for real: one clear message, the documented status, nothing left running."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from console import Console, this_machine, wait_until

from glmplan.engine import EngineKind
from glmplan.errors import EngineError
from glmplan.launchers import records
from glmplan.launchers.client import Target, look
from glmplan.launchers.health import Readiness, ask
from glmplan.launchers.identity import ProcessIdentity
from glmplan.launchers.launch import Endpoint
from glmplan.launchers.stream import stream_completion

pytestmark = pytest.mark.e2e
EMBEDDED = EngineKind.XLLAMACPP
KINDS = [
    EMBEDDED,
    pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled),
    pytest.param(EngineKind.LLAMA_CPP_PYTHON, marks=pytest.mark.compiled),
]


def error_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """The error document, which is all there is on standard output; no traceback anywhere."""
    assert "Traceback" not in done.stdout + done.stderr
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["message"] in done.stderr
    assert error["hint"]
    return error


def answer_for_ever(target: Target, got: threading.Event) -> None:
    """Stream until the engine breaks off; noise may end a text early where end-of-text cannot be ignored."""
    while True:
        stream_completion(target, "a b c", n_predict=1900, ignore_eos=True, on_text=lambda _: got.set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_in_use_is_found_before_anything_is_loaded(console: Console, kind: EngineKind) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", console.port))
        held.listen()
        done = console.run("run", console.plan(kind), "--port", str(console.port), "--json")
    assert done.returncode == 4
    error = error_of(done)
    assert error["type"] == "PortTaken"
    assert error["facts"]["pid"] == os.getpid()
    assert f"--port {error['facts']['free_port']}" in error["hint"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_dies_on_a_broken_file_says_so(console: Console, kind: EngineKind, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    shutil.copy(console.model, broken)
    with broken.open("r+b") as stream:
        stream.seek(24)
        stream.write(b"\xff" * 4096)
    console.model = broken
    done = console.run("run", console.plan(kind), "--port", str(console.port), "--json")
    assert done.returncode == 4
    error = error_of(done)
    assert error["type"] == "EngineExited"
    assert error["facts"]["cause"] == "model-broken"
    assert error["facts"]["return_code"] != 0
    assert error["facts"]["log_tail"]
    assert Path(error["facts"]["log"]).is_file()
    console.wait_for_no_leftovers(1)
    assert json.loads(console.run("status", "--json").stdout)["engines"] == []


def test_a_truncated_and_a_missing_file_are_bad_input(console: Console, tmp_path: Path) -> None:
    whole = console.plan(EMBEDDED)
    short = tmp_path / "short.gguf"
    short.write_bytes(console.model.read_bytes()[:600_000])
    document = json.loads(Path(whole).read_text())
    for file, kind in ((short, "GgufError"), (tmp_path / "none.gguf", "InputError")):
        document["model"]["file"] = str(file)
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps(document))
        done = console.run("run", str(changed), "--port", str(console.port), "--json")
        assert done.returncode == 2
        assert error_of(done)["type"] == kind


def test_a_plan_that_is_none_is_bad_input(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for text in ('{"schema": "glmplan/plan/9"}', "not json", "[]"):
        path.write_text(text)
        done = console.run("run", str(path), "--json")
        assert (done.returncode, error_of(done)["type"]) == (2, "PlanFileError")
    done = console.run("run", str(tmp_path / "absent.json"), "--json")
    assert (done.returncode, error_of(done)["type"]) == (2, "PlanFileError")


def test_a_plan_for_another_machine_is_stale_unless_forced(console: Console) -> None:
    document = json.loads(Path(console.plan(EMBEDDED)).read_text())
    document["machine"] |= {"fingerprint": "0" * 16, "cpu": "Z80"}
    path = console.folder / "stale.json"
    path.write_text(json.dumps(document))
    port = str(console.port)
    done = console.run("run", str(path), "--port", port, "--json")
    assert done.returncode == 5
    error = error_of(done)
    assert error["type"] == "StalePlan"
    assert "processor Z80, here" in error["message"]
    assert console.run("bench", str(path), "--json").returncode == 5
    forced = console.run("run", str(path), "--port", port, "--detach", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "forced" in forced.stderr
    # What is measured now is of this machine, whatever the plan said.
    measured = console.run("bench", "--json", "--prompt-tokens", "8", "--output-tokens", "2", "--repetitions", "1")
    fingerprint = json.loads(measured.stdout)["measurement"]["machine_fingerprint"]
    assert fingerprint == this_machine(EMBEDDED).fingerprint
    assert console.run("stop").returncode == 0


def test_an_engine_that_is_not_installed_is_named_with_those_that_are(console: Console) -> None:
    plan = json.loads(Path(console.plan(EMBEDDED)).read_text())
    plan["placement"]["engine"] = "llama-server"
    path = console.folder / "other.json"
    path.write_text(json.dumps(plan))
    console.environment["PATH"] = "/nonexistent"
    done = console.run("run", str(path), "--json")
    assert done.returncode == 4
    error = error_of(done)
    assert error["type"] == "EngineNotFound"
    assert error["facts"]["wanted"] == "llama-server"


def test_an_engine_that_is_too_slow_is_stopped(console: Console) -> None:
    plan = console.plan(EMBEDDED)
    done = console.run("run", plan, "--port", str(console.port), "--timeout", "0", "--detach", "--json")
    assert done.returncode == 4
    assert error_of(done)["type"] == "EngineNotHealthy"
    console.wait_for_no_leftovers(1)


def test_out_of_memory_is_recognised_by_its_words(console: Console) -> None:
    plan = console.plan(EMBEDDED, n_ctx=16_000_000)  # 9 GB of KV cache
    limit = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    limited = (sys.executable, "-c", limit)
    done = console.run("run", plan, "--port", str(console.port), "--json", prefix=limited)
    assert done.returncode == 4
    error = error_of(done)
    assert error["facts"]["cause"] == "out-of-memory"
    assert error["facts"]["device"] == "host"
    assert "--n-ctx" in error["hint"]
    console.wait_for_no_leftovers(1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_orphan_when_glmplan_is_killed(console: Console, kind: EngineKind) -> None:
    running = console.start("run", console.plan(kind), "--port", str(console.port), "--json")
    running.report()
    running.popen.kill()
    running.wait()
    console.wait_for_no_leftovers(5)
    assert json.loads(console.run("status", "--json").stdout)["engines"] == []
    again = console.run("run", console.plan(kind), "--port", str(console.port), "--detach")
    assert again.returncode == 0, again.stderr
    assert console.run("stop").returncode == 0


def test_no_orphan_when_glmplan_is_killed_while_the_engine_loads(console: Console) -> None:
    running = console.start("run", console.plan(EMBEDDED), "--port", str(console.port), "--json")
    wait_until(lambda: len(console.leftovers()) > 1, 20, lambda: running.stderr)
    running.popen.kill()
    running.wait()
    console.wait_for_no_leftovers(5)


def test_two_launches_at_once_on_one_port(console: Console) -> None:
    plan = console.plan(EMBEDDED)
    both = [console.start("run", plan, "--port", str(console.port), "--json") for _ in range(2)]
    wait_until(lambda: any(one.popen.poll() is not None for one in both), 30, lambda: both[0].stderr + both[1].stderr)
    loser = next(one for one in both if one.popen.poll() is not None)
    winner = next(one for one in both if one is not loser)
    assert loser.wait() == 4
    assert json.loads(loser.stdout)["error"]["type"] == "PortTaken"
    winner.report()
    assert ask(Endpoint(port=console.port), "/health").readiness is Readiness.READY
    assert [engine["port"] for engine in json.loads(console.run("status", "--json").stdout)["engines"]] == [
        console.port
    ]
    winner.popen.send_signal(signal.SIGINT)
    assert winner.wait() == 130


def test_a_failed_launch_leaves_the_engine_on_that_port_alone(console: Console) -> None:
    plan = console.plan(EMBEDDED)
    assert console.run("run", plan, "--detach", "--port", str(console.port)).returncode == 0
    assert console.run("run", plan, "--detach", "--port", str(console.port)).returncode == 4
    assert len(json.loads(console.run("status", "--json").stdout)["engines"]) == 1
    assert console.run("stop", "--port", str(console.port)).returncode == 0


def test_two_engines_side_by_side_are_told_apart(console: Console) -> None:
    plan = console.plan(EMBEDDED)
    assert console.run("run", plan, "--detach", "--port", "0").returncode == 0
    assert console.run("run", plan, "--detach", "--port", "0").returncode == 0
    engines = json.loads(console.run("status", "--json").stdout)["engines"]
    assert len({engine["port"] for engine in engines}) == 2
    unclear = console.run("stop")
    assert unclear.returncode == 2
    assert all(str(engine["port"]) in unclear.stderr for engine in engines)
    assert console.run("stop", "--all").returncode == 0
    console.wait_for_no_leftovers(1)


def test_a_stale_record_is_not_believed_and_its_process_is_left_alone(console: Console) -> None:
    """A process number that was used again: the record's start time is not that of the process."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        home = Path(console.environment["GLMPLAN_HOME"])
        stale = records.RunRecord(
            endpoint=Endpoint(port=console.port),
            engine="xllamacpp",
            engine_version=None,
            process=ProcessIdentity(pid=bystander.pid, started_at=time.time() - 100_000),
            supervisor=ProcessIdentity(pid=bystander.pid, started_at=time.time() - 100_000),
            detached=True,
            started_at="2026-01-01T00:00:00Z",
            model="m",
            quantization="q",
            synthetic=True,
            n_ctx=1,
            log=str(home / "none.log"),
            health_path="/health",
            timings=True,
        )
        records.write(stale)
        assert json.loads(console.run("status", "--json").stdout)["engines"] == []
        records.write(stale)
        assert console.run("stop", "--all").returncode == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_does_not_wait_for_an_answer_in_progress(console: Console, kind: EngineKind) -> None:
    started = console.run("run", console.plan(kind), "--detach", "--port", str(console.port), "--json")
    target = look(json.loads(started.stdout)["url"])
    got = threading.Event()
    heard: list[str] = []

    def listen() -> None:
        try:
            answer_for_ever(target, got)
        except EngineError as error:
            heard.append(error.message)

    client = threading.Thread(target=listen)
    client.start()
    assert got.wait(20)
    began = time.monotonic()
    assert console.run("stop").returncode == 0
    stopped_s = time.monotonic() - began
    client.join(10)
    assert stopped_s < 8
    assert len(heard) == 1
    assert "broke off" in heard[0]


def test_an_engine_that_ignores_the_request_to_stop_is_killed(console: Console) -> None:
    """SIGSTOP makes an engine deaf to SIGTERM."""
    done = console.run("run", console.plan(EMBEDDED), "--detach", "--port", str(console.port), "--json")
    engine = json.loads(done.stdout)["pid"]
    os.kill(engine, signal.SIGSTOP)
    assert console.run("stop").returncode == 0
    assert not psutil.pid_exists(engine) or psutil.Process(engine).status() == psutil.STATUS_ZOMBIE
