"""The only door to the machine: files, folders, commands, environment and native calls.

Probes ask a `Host`; `LocalHost` is this machine, `glmplan.profiles.tape.TapeHost` is a recorded one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from glmplan.errors import JsonValue
from glmplan.noun import noun
from glmplan.profiles import answers

PROBE_BUDGET_S: Final = 3.5
_READ_LIMIT_BYTES: Final = 4 * 1024**2
_LAST_WORDS_S: Final = 0.2


@noun
class Completed:
    """What a command answered; `returncode` is None when it never ended, and `why` says why."""

    returncode: int | None
    stdout: str = ""
    stderr: str = ""
    why: str = ""

    @property
    def ok(self) -> bool:
        """True when the command ran and returned 0."""
        return self.returncode == 0


class Host(Protocol):
    """A machine that can be asked; no member raises for absence."""

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables."""
        ...

    def read(self, path: str) -> str | None:
        """The text of a file; None when it is absent or unreadable."""
        ...

    def folder(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; empty when it is absent or unreadable."""
        ...

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 2.0, remember_for: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        """Run a command.

        Args:
            argv: the program and its arguments; no shell.
            timeout_s: seconds it may take.
            remember_for: the file whose change makes an earlier answer worthless; None asks anew each time.
            env: variables added to the environment.
        """
        ...

    def call(self, name: str, collect: Callable[[], JsonValue]) -> JsonValue:
        """The answer of `collect`, a native call that returns plain JSON."""
        ...


class LocalHost:
    """This machine; all commands together may take `budget_s` seconds, counted from the first."""

    def __init__(self, *, budget_s: float = PROBE_BUDGET_S) -> None:
        """Start with the whole budget."""
        self._budget_s = budget_s
        self._started_at: float | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables of this process."""
        return os.environ

    def read(self, path: str) -> str | None:
        """The text of a file of at most 4 MiB; None when it is absent or unreadable."""
        try:
            with Path(path).open("rb") as stream:
                return stream.read(_READ_LIMIT_BYTES).decode("utf-8", "replace")
        except (OSError, ValueError):  # ValueError: a NUL byte in the path
            return None

    def folder(self, path: str) -> tuple[str, ...]:
        """Sorted names in a folder; empty when it is absent or unreadable."""
        try:
            return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names, not paths
        except (OSError, ValueError):
            return ()

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 2.0, remember_for: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        """Run a command in its own process group and kill the group when time is up."""
        key = answers.key_of(spoken(argv, env), remember_for) if remember_for else None
        if key and (known := answers.recall(key)):
            return Completed(returncode=known.returncode, stdout=known.stdout, stderr=known.stderr)
        completed = self._run_now(argv, min(timeout_s, self._left_s()), env)
        if key and completed.ok:
            answers.keep(key, answers.Answer(returncode=0, stdout=completed.stdout, stderr=completed.stderr))
        return completed

    def call(self, name: str, collect: Callable[[], JsonValue]) -> JsonValue:  # noqa: ARG002 - tapes need the name
        """Collect now."""
        return collect()

    def _left_s(self) -> float:
        now = time.monotonic()
        if self._started_at is None:
            self._started_at = now
        return self._budget_s - (now - self._started_at)

    def _run_now(self, argv: Sequence[str], timeout_s: float, env: Mapping[str, str] | None) -> Completed:
        if timeout_s <= 0:
            return Completed(returncode=None, why=f"the {self._budget_s:g} s for all probes were used up")
        return run_child(argv, timeout_s=timeout_s, env=env)


def spoken(argv: Sequence[str], env: Mapping[str, str] | None) -> tuple[str, ...]:
    """`argv` with added variables in front, as one would type them."""
    return (*(f"{name}={value}" for name, value in sorted((env or {}).items())), *argv)


def run_child(argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Completed:
    """Run `argv` without a shell, untranslated, in its own process group; kill the group after `timeout_s`."""
    try:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_environment(env or {}), start_new_session=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        return Completed(returncode=None, why="not found")
    except (OSError, ValueError) as error:
        return Completed(returncode=None, why=str(error))
    try:
        stdout, stderr = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        return Completed(returncode=None, why=f"no answer in {timeout_s:.1f} s")
    return Completed(returncode=child.returncode, stdout=stdout, stderr=stderr)


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, untranslated, with `added`; library folders come before those already there."""
    merged = {**os.environ, **added, "LC_ALL": "C"}
    for name in added:
        if name.endswith("_LIBRARY_PATH") and os.environ.get(name):
            merged[name] = f"{added[name]}:{os.environ[name]}"
    return merged


def _kill_group(child: "subprocess.Popen[str]") -> None:
    """Kill the group; a process stuck in the kernel does not die, and is left behind rather than waited for."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=_LAST_WORDS_S)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
