"""The keeper: an engine's life is tied to the process that started it, by the kernel or by a pipe."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from console import wait_until

from glmplan.launchers import keeper

KEEPER = str(Path(keeper.__file__))
pytestmark = pytest.mark.e2e

# A parent that starts a sleeping child through the keeper, says its number, and sleeps.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], sys.argv[2], str(os.getpid()), "--",
                          sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"],
                         stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def modes() -> list[str]:
    return ["die-with", "watch"] if sys.platform == "linux" else ["watch"]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("mode", modes())
def test_the_engine_dies_with_a_killed_parent(mode: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, KEEPER, mode], stdout=subprocess.PIPE, text=True
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        assert "up" in said
        pid = int(next(iter(said - {"up"})))
        family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        assert all(alive(member) for member in family)
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(alive(member) for member in family), 5, lambda: f"still alive: {family}")


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)])
def test_the_engines_exit_status_is_passed_on(mode: str, code: str, expected: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", KEEPER, mode, str(os.getpid()), "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as kept:
        assert kept.wait(20) == expected


@pytest.mark.parametrize("mode", modes())
def test_a_request_to_stop_reaches_the_engine(mode: str) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(3)); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", KEEPER, mode, str(os.getpid()), "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as kept:
        assert kept.stdout is not None
        assert kept.stdout.readline() == b"up\n"
        os.killpg(kept.pid, signal.SIGTERM)
        assert kept.wait(20) == 3


@pytest.mark.parametrize("mode", modes())
def test_a_program_that_is_not_there_is_said(mode: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", KEEPER, mode, str(os.getpid()), "--", "/nonexistent/engine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == keeper.EXIT_CANNOT_START
    assert "cannot start /nonexistent/engine: No such file or directory" in done.stderr


@pytest.mark.parametrize("mode", modes()[:-1])
def test_a_parent_that_died_first_is_noticed(mode: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", KEEPER, mode, "1", "--", sys.executable, "-c", "print('ran')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (keeper.EXIT_PARENT_GONE, "")


def test_it_costs_milliseconds() -> None:
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-I", "-S", KEEPER, modes()[0], str(os.getpid()), "--", "/bin/true"],
        check=True,
        stdin=subprocess.DEVNULL if modes()[0] == "die-with" else subprocess.PIPE,
    )
    assert time.monotonic() - began < 0.5
