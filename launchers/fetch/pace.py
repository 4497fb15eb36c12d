"""How fast bytes come: for people, and to tell a server that drips from one that sends."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from glmplan.fetched import FetchPhase, FetchProgress

_WINDOW_S: Final = 10.0
_SHOWN_EVERY_S: Final = 0.2


class Pace:
    """Bytes per second over the last ten seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing counted yet."""
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, n_bytes: int) -> None:
        """Count bytes that came now."""
        now = self._clock()
        self._total += n_bytes
        self._seen.append((now, self._total))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None until there is a second to judge by."""
        if not self._seen:
            return None
        (began, first), (_, last) = self._seen[0], self._seen[-1]
        elapsed_s = self._clock() - began
        return (last - first) / elapsed_s if elapsed_s >= 1.0 else None


class Tally:
    """All files of one model as one progress, told a few times a second."""

    def __init__(self, total_bytes: int, on_progress: Callable[[FetchProgress], None]) -> None:
        """Nothing done of `total_bytes` yet."""
        self._total_bytes = total_bytes
        self._on_progress = on_progress
        self._before_bytes = 0
        self._file = ""
        self._phase = FetchPhase.FETCHING
        self._pace = Pace()
        self._shown_s: float | None = None

    def begin(self, file: str, phase: FetchPhase) -> None:
        """From now on bytes are of this file."""
        self._file, self._phase, self._pace, self._shown_s = file, phase, Pace(), None

    def end_file(self, size_bytes: int) -> None:
        """The file is done."""
        self._before_bytes += size_bytes

    def at(self, position_bytes: int, came_bytes: int) -> None:
        """The file is done up to `position_bytes`; `came_bytes` of them just now."""
        self._pace.add(came_bytes)
        now = time.monotonic()
        if self._shown_s is not None and now - self._shown_s < _SHOWN_EVERY_S:
            return
        self._shown_s = now
        done, rate = self._before_bytes + position_bytes, self._pace.bytes_per_s
        self._on_progress(
            FetchProgress(
                file=self._file,
                phase=self._phase,
                done_bytes=done,
                total_bytes=self._total_bytes,
                rate_bytes_per_s=rate,
                left_s=(self._total_bytes - done) / rate if rate else None,
            )
        )
