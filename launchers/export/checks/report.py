"""What a check found, and the means it has."""

import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from glmplan.engine import Engine
from glmplan.launchers.export.exported import Exported
from glmplan.noun import noun

_TIMEOUT_S: Final = 30.0
_MAX_LINES: Final = 5
# Programs that judge files, looked for on the PATH.
JUDGES: Final = ("shellcheck", "systemd-analyze", "plutil", "pwsh", "docker", "opencode", "config-yaml")


@noun
class CheckReport:
    """`by` names who judged; `problems` is empty when the file was accepted."""

    by: tuple[str, ...]
    problems: tuple[str, ...] = ()


@noun
class Tools:
    """Programs of this machine that can judge a file; None or a missing name: not here."""

    llama_server: Engine | None = None
    programs: Mapping[str, str] | None = None

    def program(self, name: str) -> str | None:
        """The path of a program."""
        return (self.programs or {}).get(name)


@noun
class Outcome:
    """What a program answered."""

    returncode: int
    stdout: str
    stderr: str

    def problems(self, *, quiet: bool = False) -> tuple[str, ...]:
        """Why it refused; with `quiet`, anything it says is a refusal."""
        said = [line.strip() for line in (self.stderr + self.stdout).splitlines() if line.strip()]
        if self.returncode == 0 and not (quiet and said):
            return ()
        errors = [line for line in said if "error" in line.lower()]
        return tuple((errors or said)[-_MAX_LINES:]) or (f"it ended with {self.returncode}",)


def ask(argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S) -> Outcome:
    """Run a judge to its end; one that hangs or cannot start has refused. Nothing it started is left behind."""
    try:
        judge = subprocess.Popen(
            list(argv), env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Outcome(returncode=-1, stdout="", stderr=f"{argv[0]}: {error.strerror}")
    try:
        out, err = judge.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Outcome(returncode=-1, stdout="", stderr=f"{argv[0]}: no answer within {timeout_s:g} s")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(judge.pid, signal.SIGKILL)
        judge.wait()
    # Bytes: text mode would turn carriage returns into line feeds.
    return Outcome(
        returncode=judge.returncode, stdout=out.decode("utf-8", "replace"), stderr=err.decode("utf-8", "replace")
    )


@contextmanager
def as_file(exported: Exported, name: str) -> Generator[Path]:
    """The export as a file that exists while the block runs."""
    with TemporaryDirectory(prefix="glmplan-check-") as folder:
        path = Path(folder, name)
        path.write_text(exported.text, encoding="utf-8")
        yield path
