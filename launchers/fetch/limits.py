"""How patient a fetch is, and the errors that are worth another attempt."""

import datetime
import email.utils
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from glmplan.errors import GlmplanError, InputError
from glmplan.http_requests import HttpLimits
from glmplan.noun import noun
from glmplan.units import MIB

_SECONDS: Final = re.compile(r"\d{1,6}(?:\.\d{1,3})?")


@noun
class FetchLimits:
    """`attempts` count failures in a row: an attempt that brings `progress_bytes` starts the count anew.

    A server that sends less than `slowest_bytes_per_s` over `window_s` is hung up on and asked again.
    `spare_bytes` stay free on the disk.
    """

    http: HttpLimits = HttpLimits(read_s=30.0)
    attempts: int = 6
    backoff_s: float = 1.0
    longest_pause_s: float = 120.0
    window_s: float = 30.0
    slowest_bytes_per_s: int = 1024
    progress_bytes: int = MIB
    spare_bytes: int = 64 * MIB


class Interrupted(Exception):
    """An attempt failed in a way that another may not; `final` is what to raise when all have."""

    def __init__(self, final: GlmplanError, *, pause_s: float | None = None) -> None:
        """Keep the error, and the pause the server asked for."""
        super().__init__(final.message)
        self.final = final
        self.pause_s = pause_s


class Patience:
    """Counts failures in a row and waits between attempts, twice as long each time."""

    def __init__(self, limits: FetchLimits, say: Callable[[str], None]) -> None:
        """No failure yet."""
        self._limits = limits
        self._say = say
        self._failures = 0

    def progressed(self) -> None:
        """Something came: begin counting anew."""
        self._failures = 0

    def wait(self, interrupted: Interrupted) -> None:
        """Pause before the next attempt.

        Raises:
            GlmplanError: there have been enough attempts, or the server wants to be left alone for long.
        """
        self._failures += 1
        asked = interrupted.pause_s
        pause_s = self._limits.backoff_s * 2 ** (self._failures - 1) if asked is None else asked
        if self._failures >= self._limits.attempts:
            raise interrupted.final from interrupted
        if pause_s > self._limits.longest_pause_s:
            error = interrupted.final
            raise type(error)(
                error.message, hint=f"the server asks to come back in {pause_s:.0f} s", facts=error.facts
            ) from interrupted
        self._say(f"{interrupted.final.message}; trying again in {pause_s:.0f} s")
        time.sleep(pause_s)


def retry_after_s(text: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date (RFC 9110, 10.2.3); None without one."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max(0.0, (until - datetime.datetime.now(datetime.UTC)).total_seconds())


def limits_of(env: Mapping[str, str]) -> FetchLimits:
    """Limits with huggingface_hub's own variable for the time a server may be silent.

    Raises:
        InputError: HF_HUB_DOWNLOAD_TIMEOUT is no number of seconds.
    """
    written = env.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip()
    if not written:
        return FetchLimits()
    if not _SECONDS.fullmatch(written) or not float(written):
        message = f"HF_HUB_DOWNLOAD_TIMEOUT is {written!r}, not a number of seconds"
        raise InputError(message, hint="unset it, or write a number such as 30")
    return FetchLimits(http=HttpLimits(read_s=float(written)))
