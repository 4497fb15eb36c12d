"""Progress of something slow, on standard error: one line rewritten on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Final, Self

from glmplan.units import format_bytes

_QUIET_S: Final = 5.0


class ProgressLine:
    """A line that changes; cleared when the block ends."""

    def __init__(self) -> None:
        """Look once whether standard error is a terminal."""
        self._terminal = sys.stderr.isatty()
        self._shown = False
        self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def show(self, text: str) -> None:
        """Say `text`, now or, away from a terminal, when a few seconds have passed."""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._shown = True
        elif time.monotonic() - self._last_s > _QUIET_S:
            self._last_s = time.monotonic()
            sys.stderr.write(text + "\n")


def loading_text(elapsed_s: float, status: str, resident_bytes: int | None, model_bytes: int) -> str:
    """How far a model has come into memory."""
    words = {"silent": "starting", "loading": "loading the model"}.get(status, status)
    amount = ""
    if resident_bytes is not None:
        amount = f", {format_bytes(resident_bytes)} resident of a file of {format_bytes(model_bytes)}"
    return f"{words}: {elapsed_s:.0f} s{amount}"
