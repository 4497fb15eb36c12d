"""A disk of 80 MiB that can be filled: a tmpfs of its own mount namespace, or a limit on the size of files."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import psutil

SIZE_BYTES: Final = 80 * 1024 * 1024  # a fetch leaves 64 MiB free
_MOUNT: Final = f'mount -t tmpfs -o size={SIZE_BYTES},mode=700 tmpfs "$0" && echo mounted && exec cat'
_LIMITED: Final = (
    "import os, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class SmallDisk(Protocol):
    """`folder` is on a small disk for programs started with `prefix`; `seen` is the same for this process."""

    folder: Path
    seen: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that make it write there."""
        ...

    def leave(self, n_bytes: int) -> None:
        """Leave room for so many bytes."""
        ...

    def make_room(self) -> None:
        """As much room as at first."""
        ...


class _Tmpfs:
    def __init__(self, folder: Path, holder: "subprocess.Popen[str]", *, own_user: bool) -> None:
        self.folder = folder
        self.seen = Path(f"/proc/{holder.pid}/root{folder}")
        user = ("--user", "--preserve-credentials") if own_user else ()
        self.prefix: tuple[str, ...] = ("nsenter", "--target", str(holder.pid), *user, "--mount", "--")

    def leave(self, n_bytes: int) -> None:
        with (self.seen / "ballast").open("ab") as ballast:
            # Whoever writes meanwhile takes from the room that was counted.
            while (more := shutil.disk_usage(self.seen).free - n_bytes) > 0:
                with suppress(OSError):
                    os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), more)

    def make_room(self) -> None:
        (self.seen / "ballast").unlink()


class _FileLimit:
    """Where nothing may be mounted: no file may grow beyond what is left."""

    def __init__(self, folder: Path, running: Callable[[], Iterable[psutil.Process]]) -> None:
        self.folder = self.seen = folder
        self._running = running
        self._limit_bytes = SIZE_BYTES

    @property
    def prefix(self) -> tuple[str, ...]:
        return (sys.executable, "-c", _LIMITED, str(self._limit_bytes))

    def leave(self, n_bytes: int) -> None:
        self._limit_bytes = n_bytes
        for process in self._running():
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    def make_room(self) -> None:
        self.leave(SIZE_BYTES)


@contextmanager
def small_disk(folder: Path, running: Callable[[], Iterable[psutil.Process]]) -> Generator[SmallDisk]:
    """A small disk at `folder`; `running` are the processes that are being tested."""
    folder.mkdir()
    for words in (("-m",), ("-rm",)):
        holder = subprocess.Popen(
            ["unshare", *words, "sh", "-c", _MOUNT, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ),
        )  # fmt: skip
        with holder:
            assert holder.stdout is not None
            if holder.stdout.readline():
                yield _Tmpfs(folder, holder, own_user=words == ("-rm",))
                return
    yield _FileLimit(folder, running)
