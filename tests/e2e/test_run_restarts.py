"""Engines that die while they serve, and who starts them again: attached and in the background."""

import json
import os
import signal
import threading
import time
from typing import Any

import psutil
import pytest
from console import Console, wait_until

from glmplan.commands.launching import engine_for, load_plan
from glmplan.commands.serving import Survival, serving
from glmplan.engine import EngineKind
from glmplan.errors import EngineError, EngineExited
from glmplan.launchers import records
from glmplan.launchers.client import Target, look
from glmplan.launchers.health import Readiness, ask
from glmplan.launchers.identity import is_alive
from glmplan.launchers.launch import Endpoint
from glmplan.launchers.restarts import RestartPolicy
from glmplan.launchers.stream import stream_completion

pytestmark = pytest.mark.e2e
EMBEDDED = EngineKind.XLLAMACPP
KINDS = [
    EMBEDDED,
    pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled),
    pytest.param(EngineKind.LLAMA_CPP_PYTHON, marks=pytest.mark.compiled),
]


def status(console: Console) -> list[dict[str, Any]]:
    engines: list[dict[str, Any]] = json.loads(console.run("status", "--json").stdout)["engines"]
    return engines


def detached(console: Console, kind: EngineKind = EMBEDDED, *words: str) -> dict[str, Any]:
    """A launch in the background: its report."""
    done = console.run("run", console.plan(kind), "--port", str(console.port), "--detach", "--json", *words)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def supervisor_of(engine_pid: int) -> psutil.Process:
    """The glmplan that watches an engine."""
    parent = psutil.Process(engine_pid).parent()
    assert parent is not None
    return parent


def stream_for_ever(target: Target, got: threading.Event) -> None:
    """Noise may end a text early where end-of-text cannot be ignored: ask again until the engine breaks off."""
    while True:
        stream_completion(target, "a b c", n_predict=1900, ignore_eos=True, on_text=lambda _: got.set())


def kill_mid_answer(target: Target, pid: int) -> float:
    """Seconds after a kill -9 of the engine until a client that streams hears of it."""
    got = threading.Event()
    killed_at: list[float] = []

    def kill() -> None:
        got.wait(20)
        killed_at.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EngineError, match=r"broke off|Connection refused"):
        stream_for_ever(target, got)
    heard_s = time.monotonic() - killed_at[0]
    killer.join()
    return heard_s


def wait_until_it_answers(console: Console, kind: EngineKind, limit_s: float) -> float:
    path = "/v1/models" if kind is EngineKind.LLAMA_CPP_PYTHON else "/health"
    began = time.monotonic()
    endpoint = Endpoint(port=console.port)
    wait_until(lambda: ask(endpoint, path).readiness is Readiness.READY, limit_s, lambda: console.run("logs").stdout)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_killed_mid_answer_is_there_again_and_the_client_hears_of_it(
    console: Console, kind: EngineKind
) -> None:
    running = console.start("run", console.plan(kind), "--port", str(console.port), "--json")
    report = running.report()
    assert kill_mid_answer(look(report["url"]), report["pid"]) < 2
    wait_until_it_answers(console, kind, 10)
    wait_until(lambda: "the engine answers again" in running.stderr, 10, lambda: running.stderr)
    assert "restart 1, at most 5 in 10 minutes" in running.stderr
    (engine,) = status(console)
    assert (engine["state"], engine["restarts"]) == ("ready", 1)
    assert "SIGKILL" in engine["last_reason"]
    assert engine["pid"] != report["pid"]
    assert "SIGKILL" in console.run("status").stdout
    assert stream_completion(look(report["url"]), "a b c", n_predict=4).output_tokens > 0
    # Restarts go on in the same log, and standard output keeps its one document.
    assert console.run("logs").stdout.count("# started ") == 2
    assert json.loads(running.stdout)["pid"] == report["pid"]
    running.popen.send_signal(signal.SIGINT)
    assert running.wait() == 130
    console.wait_for_no_leftovers(1)


def test_without_restarts_the_engines_end_is_glmplans(console: Console) -> None:
    running = console.start("run", console.plan(EMBEDDED), "--port", str(console.port), "--json", "--no-restart")
    report = running.report()
    kill_mid_answer(look(report["url"]), report["pid"])
    assert running.wait(10) == 4
    assert json.loads(running.stdout)["pid"] == report["pid"]  # one document, although there was an error after it
    assert "ended while serving: somebody killed it (signal 9, SIGKILL)" in running.stderr
    console.wait_for_no_leftovers(1)
    assert status(console) == []


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_background_it_is_started_again_too(console: Console, kind: EngineKind) -> None:
    report = detached(console, kind)
    supervisor = supervisor_of(report["pid"])
    assert os.getsid(supervisor.pid) == supervisor.pid != os.getsid(0)
    assert kill_mid_answer(look(report["url"]), report["pid"]) < 2
    wait_until_it_answers(console, kind, 10)
    wait_until(lambda: status(console)[0]["restarts"] == 1, 10, lambda: str(status(console)))
    assert "the engine answers again" in console.run("logs").stdout
    assert console.run("stop").returncode == 0
    console.wait_for_no_leftovers(1)
    assert status(console) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_orphan_when_the_one_that_watches_in_the_background_is_killed(console: Console, kind: EngineKind) -> None:
    report = detached(console, kind)
    supervisor_of(report["pid"]).kill()
    console.wait_for_no_leftovers(5)
    assert status(console) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_waiting_glmplan_that_is_killed_takes_the_launch_with_it(console: Console, number: signal.Signals) -> None:
    waiting = console.start("run", console.plan(EMBEDDED), "--port", str(console.port), "--detach")
    wait_until(lambda: len(console.leftovers()) > 2, 20, lambda: waiting.stderr)
    waiting.popen.send_signal(number)
    waiting.wait()
    console.wait_for_no_leftovers(5)
    assert status(console) == []


def test_ctrl_c_while_a_background_launch_loads_ends_it(console: Console) -> None:
    waiting = console.start("run", console.plan(EMBEDDED), "--port", str(console.port), "--detach", "--json")
    wait_until(lambda: len(console.leftovers()) > 2, 20, lambda: waiting.stderr)
    waiting.popen.send_signal(signal.SIGINT)
    assert waiting.wait() == 130
    assert waiting.stdout == ""
    console.wait_for_no_leftovers(5)


def test_an_engine_that_dies_again_and_again_is_given_up_with_the_reason(console: Console) -> None:
    """Attached or not, the same code watches; here it waits less than it would."""
    plan = load_plan(console.plan(EMBEDDED))
    impatient = Survival(restarts=RestartPolicy(most=3, first_delay_s=0.01))
    killed: list[int] = []

    def kill_every_one() -> None:
        while len(killed) < 4:
            for record in records.running():
                alive = record.process.pid not in killed and ask(record.endpoint, "/health")
                if alive and alive.readiness is Readiness.READY:
                    killed.append(record.process.pid)
                    os.kill(record.process.pid, signal.SIGKILL)
            time.sleep(0.02)

    def serve() -> None:
        with serving(plan, engine_for(plan), Endpoint(port=console.port), impatient, on_progress=lambda _: None) as now:
            threading.Thread(target=kill_every_one, daemon=True).start()
            now.stay()

    with pytest.raises(EngineExited, match=r"SIGKILL.*started again 3 times within 10 minutes: given up") as caught:
        serve()
    assert len(set(killed)) == 4
    assert caught.value.facts["restarts"] == 3
    (engine,) = status(console)
    assert (engine["state"], engine["pid"], engine["restarts"]) == ("gave-up", None, 3)
    assert engine["last_reason"] == caught.value.message
    assert "given up" in console.run("status").stdout
    # It stays known until it is stopped, or its port is launched on again.
    assert console.run("stop").returncode == 0
    assert status(console) == []


def test_stopping_while_it_waits_to_start_again_leaves_nothing(console: Console) -> None:
    report = detached(console)
    os.kill(report["pid"], signal.SIGKILL)
    (record,) = records.running()
    wait_until(lambda: not is_alive(record.process), 2, lambda: str(record))
    (record,) = records.running()
    records.stop(record)
    console.wait_for_no_leftovers(1)
    assert status(console) == []


def test_a_second_launch_is_told_who_serves_on_the_port(console: Console) -> None:
    detached(console)
    done = console.run("run", console.plan(EMBEDDED), "--port", str(console.port), "--json")
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "PortTaken"
    assert "xllamacpp, started by glmplan" in error["message"]
    assert console.run("stop").returncode == 0


def test_the_background_keeps_no_stream_of_its_caller(console: Console) -> None:
    """`run --detach` behind a pipe ends the pipe: subprocess.run would wait for ever otherwise."""
    report = detached(console)
    supervisor = supervisor_of(report["pid"])
    assert [path for path in supervisor.open_files() if path.path == report["log"]]
    assert json.loads(console.run("status", "--json").stdout)["engines"][0]["detached"] is True
    assert console.run("stop").returncode == 0
