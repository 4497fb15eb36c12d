"""Processes told apart by number and start time: numbers are used again."""

import contextlib
import os
from typing import Final

from glmplan.noun import noun

# psutil derives start times from the boot time, which the system may correct by a little.
_START_TOLERANCE_S: Final = 2.0


@noun
class ProcessIdentity:
    """A process number and when that process started (seconds since the epoch)."""

    pid: int
    started_at: float


def identify(pid: int) -> ProcessIdentity:
    """The identity of a running process; start time 0 when it is gone already."""
    import psutil

    try:
        return ProcessIdentity(pid=pid, started_at=psutil.Process(pid).create_time())
    except psutil.Error:
        return ProcessIdentity(pid=pid, started_at=0.0)


def own_identity() -> ProcessIdentity:
    """This process."""
    return identify(os.getpid())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process runs; one that is dead but not yet reaped does not."""
    import psutil

    try:
        process = psutil.Process(identity.pid)
        same = abs(process.create_time() - identity.started_at) < _START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process and its children, mapped file pages included; None when it is gone."""
    import psutil

    try:
        root = psutil.Process(pid)
        total = int(root.memory_info().rss)
        for child in root.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += int(child.memory_info().rss)
    except psutil.Error:
        return None
    return total


def listens_on(pid: int, port: int) -> bool:
    """Whether a process or a child of it listens on `port`; true when the system does not tell."""
    import psutil

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for process in family
            for connection in process.net_connections(kind="tcp")
        )
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since boot; None where it does not count.

    Source: Linux /proc/vmstat `oom_kill` (since 4.13), cgroup kills included.
    """
    try:
        with open("/proc/vmstat", encoding="ascii") as stream:  # noqa: PTH123 - a kernel file, read as such
            return next((int(line.split()[1]) for line in stream if line.startswith("oom_kill ")), None)
    except OSError:
        return None
