"""The installed `glmplan` in subprocesses, for end-to-end tests, and a watch over what they leave running."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
from launch_plans import plan_of

from glmplan import jsonio
from glmplan.commands.situation import situation_of, without_gpus
from glmplan.engine import EngineKind
from glmplan.launchers.port import free_port
from glmplan.plan import PlannedMachine
from glmplan.planner.machine_id import planned_machine

SCRIPT: Final = Path(sys.executable).with_name("glmplan")
_MARK: Final = "GLMPLAN_TEST_MARK"
_READY_S: Final = 60.0


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of one that has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


class Console:
    """One test's shell: its processes are marked, so that leftovers are found whoever their parent is."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.port = free_port("127.0.0.1")
        self.environment = {**os.environ, _MARK: uuid.uuid4().hex}

    def plan(self, kind: EngineKind, **knobs: Any) -> str:
        """A plan file for this test's model and this machine.

        One thread: several wait for each other by spinning, which takes for ever while others use the machine.
        """
        knobs = {"n_threads": 1, "n_threads_batch": 1, **knobs}
        plan = dataclasses.replace(plan_of(self.model, kind, **knobs), machine=this_machine(kind))
        path = self.folder / f"{uuid.uuid4().hex}.plan.json"
        path.write_text(jsonio.dumps(plan), encoding="utf-8")
        return str(path)

    def run(
        self, *words: str, timeout_s: float = 90, prefix: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Run `glmplan` to its end."""
        return subprocess.run(
            [*prefix, str(SCRIPT), *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def bench_samples(self, repetitions: int) -> list[dict[str, Any]]:
        """What a short `glmplan bench` of the running engine measures at depths 0 and 256."""
        done = self.run(
            "bench", "--json", "--depth", "0,256", "--streams", "1", "--prompt-tokens", "64", "--output-tokens", "8",
            "--repetitions", str(repetitions),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        samples: list[dict[str, Any]] = json.loads(done.stdout)["measurement"]["samples"]
        return samples

    def start(self, *words: str) -> "Foreground":
        """Start `glmplan` and leave it running."""
        return Foreground(self, words)

    def leftovers(self) -> list[psutil.Process]:
        """Processes of this test that still run."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def wait_for_no_leftovers(self, limit_s: float) -> float:
        """How many seconds it took until none of this test's processes ran; fails after `limit_s`."""
        began = time.monotonic()
        wait_until(lambda: not self.leftovers(), limit_s, lambda: f"still running: {self.leftovers()}")
        return time.monotonic() - began

    def kill_leftovers(self) -> list[str]:
        """End what still runs; what that was."""
        names: list[str] = []
        for process in self.leftovers():
            names.append(repr(process))
            process.kill()
        return names

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and process.environ().get(_MARK) == self.environment[_MARK]
        except psutil.Error:
            return False


class Foreground:
    """A `glmplan` that stays: what it said so far, its engine, its end."""

    def __init__(self, console: Console, words: tuple[str, ...]) -> None:
        self._out, self._err = (console.folder / f"{uuid.uuid4().hex}.{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [str(SCRIPT), *words], env=console.environment, cwd=console.folder, stdout=out, stderr=err
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def report(self) -> dict[str, Any]:
        """The launch report of `run --json`, once it is there."""
        wait_until(
            lambda: self.stdout.rstrip().endswith("}") or self.popen.poll() is not None, _READY_S, lambda: self.stderr
        )
        assert self.popen.poll() is None, self.stderr
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit status."""
        return self.popen.wait(timeout_s)


@functools.cache
def this_machine(kind: EngineKind) -> PlannedMachine:
    """This machine with its engine, as a plan names them."""
    here = situation_of(None, None, engine=kind.value)
    return planned_machine(here.machine if here.use_gpus else without_gpus(here.machine), here.engine)


def wait_until(condition: Callable[[], bool], limit_s: float, what: Callable[[], str]) -> None:
    """Wait for a condition; fails with what `what` says."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
