"""How many cores other programs used while an engine was timed."""

import os
import time
from collections.abc import Sequence
from typing import Final

# Two threads that wait for each other at every operation are 5 to 10 times slower when one of them shares its core:
# measured on 2 cores with llama.cpp b11549 (docs/rehearse.md).
DISTURBING_SHARE: Final = 0.125


class OthersBusy:
    """Counts what is neither idle nor spent by the given processes, this one, or their children."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Start counting beside the processes `pids`."""
        self._pids = (os.getpid(), *pids)
        self._began = time.monotonic()
        self._busy_s = _busy_s()
        self._own_s = self._spent_s()

    def cores(self) -> float:
        """Cores that others used on average since the start; never below zero."""
        wall_s = max(time.monotonic() - self._began, 1e-3)
        return max(0.0, (_busy_s() - self._busy_s - (self._spent_s() - self._own_s)) / wall_s)

    def _spent_s(self) -> float:
        import psutil

        total = 0.0
        for pid in self._pids:
            try:
                root = psutil.Process(pid)
                family = [root] if pid == os.getpid() else [root, *root.children(recursive=True)]
                total += sum(process.cpu_times().user + process.cpu_times().system for process in family)
            except psutil.Error:
                continue
        return total


def is_disturbing(cores: float) -> bool:
    """Whether others used so much that a timing is not the engine's own."""
    return cores > DISTURBING_SHARE * (os.cpu_count() or 1)


def _busy_s() -> float:
    """Seconds that all cores together were not idle, since boot; time a hypervisor took away counts."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Guests are counted in user time already.
    return float(sum(times)) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
