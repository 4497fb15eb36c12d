"""Engines of a rehearsal: started when first asked, kept side by side while their memory allows, else by turns."""

import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from glmplan.errors import EngineError
from glmplan.launchers import identity
from glmplan.launchers.client import Target
from glmplan.launchers.process import EngineProcess, signal_group
from glmplan.noun import noun
from glmplan.rehearsal import Cut

WHILE_REHEARSING = "during the rehearsal"


@noun
class Seat:
    """An engine that serves a cut."""

    cut: Cut
    target: Target
    process: EngineProcess
    load_ms: float


OpenCut = Callable[[Cut], AbstractContextManager[Seat]]


class EnginePool:
    """At most `room_bytes` of engines at once; as a context manager it leaves none behind."""

    def __init__(self, open_cut: OpenCut, sizes: Mapping[str, int], room_bytes: int) -> None:
        """Start nothing yet.

        Args:
            open_cut: serves a cut as long as its block lasts.
            sizes: bytes of memory the engine of each cut is thought to take, by name.
            room_bytes: what all running engines may take together.
        """
        self._open = open_cut
        self._sizes = sizes
        self._room = room_bytes
        self._seats: dict[str, tuple[Seat, ExitStack]] = {}
        self.load_ms: dict[str, float] = {}
        self.resident_bytes: dict[str, int] = {}
        self.peak_bytes = 0
        self.was_cut_off = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        while self._seats:
            self._close(next(reversed(self._seats)))

    @property
    def all_together(self) -> bool:
        """Whether every engine can stay loaded."""
        return sum(self._sizes.values()) <= self._room

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes of the engines that run now."""
        return tuple(seat.process.pid for seat, _ in tuple(self._seats.values()))

    def seat(self, cut: Cut) -> Seat:
        """The engine of `cut`; the least recently asked ones leave when there is no room beside them.

        Raises:
            EngineError: it cannot be started, or has died since.
        """
        known = self._seats.pop(cut.name, None)
        if known is None:
            known = self._start(cut)
        self._seats[cut.name] = known  # most recently asked: last
        return known[0]

    def cut_off(self) -> None:
        """Kill the engines, whatever they do: their time is over. May be called from another thread."""
        self.was_cut_off = True
        for pid in self.pids:
            signal_group(pid, signal.SIGKILL)

    def watch(self) -> None:
        """Look how much memory the running engines take."""
        total = 0
        for name, (seat, _) in self._seats.items():
            taken = identity.resident_bytes(seat.process.pid) or 0
            self.resident_bytes[name] = max(taken, self.resident_bytes.get(name, 0))
            total += taken
        self.peak_bytes = max(self.peak_bytes, total)

    def explained(self, error: EngineError) -> EngineError:
        """`error`, or the death of an engine that is behind it."""
        for seat, _ in self._seats.values():
            if seat.process.poll() is not None:
                return seat.process.failed(WHILE_REHEARSING)
        return error

    def _start(self, cut: Cut) -> tuple[Seat, ExitStack]:
        while self._seats and self._taken() + self._sizes[cut.name] > self._room:
            self._close(next(iter(self._seats)))
        stack = ExitStack()
        seat = stack.enter_context(self._open(cut))
        self.load_ms[cut.name] = seat.load_ms
        return seat, stack

    def _taken(self) -> int:
        return sum(self._sizes[name] for name in self._seats)

    def _close(self, name: str) -> None:
        self.watch()
        _, stack = self._seats.pop(name)
        stack.close()
