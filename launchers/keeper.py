"""Ties an engine's life to the process that started it: no orphan, even when that process is killed -9.

Run as a file by the starting interpreter with `-I -S`: `keeper.py die-with PID -- COMMAND...` or
`keeper.py watch PID -- COMMAND...`. It imports nothing of glmplan, so that it costs milliseconds.

- `die-with` (Linux): the kernel kills this process when its parent dies (PR_SET_PDEATHSIG, prctl(2)), and that
  survives the `exec` that turns it into the engine. "Parent" is the thread that started it: the main thread.
- `watch` (elsewhere, and for engines that start servers of their own): stays beside the engine and watches a pipe on
  standard input that only the parent writes; end of file means the parent is gone, and the whole process group is
  killed.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import NoReturn

EXIT_CANNOT_START = 127
EXIT_PARENT_GONE = 125
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str]) -> int:
    """Start the command after `--` in the way named first; return its exit status."""
    mode, parent, _, *command = argv
    try:
        if mode == "die-with":
            die_with(int(parent), command)
        return watch(command)
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        return EXIT_CANNOT_START


def die_with(parent: int, command: list[str]) -> NoReturn:
    """Become the command, to be killed by the kernel when `parent` dies."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) refused")
    if os.getppid() != parent:
        sys.exit(EXIT_PARENT_GONE)  # it died before the line above
    os.execvp(command[0], command)  # noqa: S606 - an argument list, without a shell


def watch(command: list[str]) -> int:
    """Run the command until it ends or standard input does; end as the command ended."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The engine gets its own copy (same process group), and exec turns a handler back into the default.
        signal.signal(number, _leave_to_the_engine)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_kill_group_at_end_of_input, daemon=True).start()
    code = child.wait()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _leave_to_the_engine(_number: int, _frame: FrameType | None) -> None:
    """Nothing to do here."""


def _kill_group_at_end_of_input() -> None:
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
