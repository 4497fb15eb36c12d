"""Runs probes side by side, each with its own notes and its own safety net."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from glmplan.machine import ProbeNote
from glmplan.profiles.probes.notes import Notes

Answer = TypeVar("Answer")


class Probing:
    """One detection: a pool of threads and the notes of each probe."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Run probes in `pool`."""
        self._pool = pool
        self._notes: dict[str, Notes] = {}

    def notes(self, probe: str) -> Notes:
        """The notes of a probe, which may run in several steps."""
        return self._notes.setdefault(probe, Notes(probe))

    def start(self, probe: str, read: Callable[[Notes], Answer], fallback: Answer) -> "Future[Answer]":
        """Run a step of a probe; one that breaks gives `fallback` and a note: a machine with a hole beats none."""
        notes = self.notes(probe)

        def guarded() -> Answer:
            try:
                return read(notes)
            except Exception as error:
                why = f"the probe failed: {type(error).__name__}: {error}"
                notes.add("*", why, "please report it with `glmplan detect --record DIR`")
                return fallback

        return self._pool.submit(guarded)

    def taken(self, order: Sequence[str]) -> tuple[ProbeNote, ...]:
        """All notes, by probe in the given order."""
        return tuple(note for name in order if name in self._notes for note in self._notes[name].taken)
