"""Numbers on the command line that are none."""

import math

import typer


def finite(value: float | None) -> float | None:
    """Refuse what a range cannot: `nan` is neither below nor above a limit.

    Raises:
        BadParameter: `value` is not finite.
    """
    if value is not None and not math.isfinite(value):
        message = f"{value} is not a finite number"
        raise typer.BadParameter(message)
    return value
