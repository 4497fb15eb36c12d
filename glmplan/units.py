"""Parse and format bytes; the constants every other module counts with."""

import re
from typing import Final

from glmplan.errors import InputError

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

_FACTORS: Final = {
    "": 1, "b": 1,
    "k": KIB, "kib": KIB, "kb": 10**3,
    "m": MIB, "mib": MIB, "mb": 10**6,
    "g": GIB, "gib": GIB, "gb": 10**9,
    "t": 1024 * GIB, "tib": 1024 * GIB, "tb": 10**12,
}  # fmt: skip
_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*")
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|)\s*")
_COUNT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)\s*")


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `16GiB`, `15780MiB`, `24 GB` (decimal) or `512`.

    Raises:
        InputError: not a size.
    """
    match = _SIZE.fullmatch(text)
    factor = _FACTORS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        message = f"not a size: {text!r}"
        raise InputError(message, hint="write a number and a unit, for example 16GiB, 15780MiB or 24GB")
    return round(float(match[1]) * factor)


def parse_tokens(text: str) -> int:
    """Tokens of a count such as `32768`, `32k` (1,024 each) or `100000`.

    Raises:
        InputError: not a count.
    """
    match = _COUNT.fullmatch(text)
    if match is None or ("." in match[1] and not match[2]):
        message = f"not a number of tokens: {text!r}"
        raise InputError(message, hint="write a number, for example 32768 or 32k")
    return round(float(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()])


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as `90`, `90s`, `15m` or `1h`.

    Raises:
        InputError: not a duration, or none at all.
    """
    match = _DURATION.fullmatch(text.lower())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        message = f"not a duration: {text!r}"
        raise InputError(message, hint="write a number and a unit, for example 90s, 15m or 1h")
    return seconds


def format_bytes(n_bytes: float) -> str:
    """`n_bytes` for a person: GiB from 1 GiB up, MiB below, one decimal."""
    if abs(n_bytes) >= GIB:
        return f"{n_bytes / GIB:.1f} GiB"
    return f"{n_bytes / MIB:.1f} MiB"


# From here on `.3g` would round to 1e+03.
_FOUR_DIGITS: Final = 999.5


def three_digits(value: float) -> str:
    """Three significant digits, never with an exponent: `0.0451`, `45.2`, `1,290`."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= _FOUR_DIGITS else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Time for a person: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
