"""Engine logs: one file per launch in the state folder, restarts in the same file, the newest kept."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from glmplan.paths import state_folder

KEPT: Final = 20
# glmplan's own lines in a log begin with "# "; this one begins the output of a further start.
STARTED: Final = "# started "
_TAIL_BYTES: Final = 256 * 1024
_FOLLOW_S: Final = 0.2


def new_log(port: int) -> Path:
    """An empty log file for a launch on `port`, readable by its owner only; the oldest logs are removed."""
    folder = state_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = folder / f"{stamp}-{time.time_ns() % 10**9:09d}-{port}.log"
    path.touch(mode=0o600, exist_ok=False)
    for old in sorted(folder.glob("*.log"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def newest_log() -> Path | None:
    """The log of the last launch; None when there was none."""
    return max((state_folder() / "logs").glob("*.log"), default=None)


def tail(path: Path, n_lines: int) -> tuple[str, ...]:
    """The last lines since the last start, without glmplan's own (`# ...`); empty when the log cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(STARTED):
            lines.clear()
        elif line.strip() and not line.startswith("# "):
            lines.append(line)
    return tuple(lines[-n_lines:])


def note(path: Path, text: str) -> None:
    """Add a line of glmplan's own to a log; nothing happens where that cannot be written."""
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as stream:
        stream.write(f"# {text}\n")


def follow(path: Path, goes_on: Callable[[], bool]) -> Iterator[str]:
    """Text of a log as it grows, until `goes_on` says no and everything has been read."""
    with path.open("r", encoding="utf-8", errors="replace") as stream:
        last = False
        while True:
            text = stream.read()
            if text:
                yield text
                continue
            if last:
                return
            last = not goes_on()
            time.sleep(0 if last else _FOLLOW_S)
