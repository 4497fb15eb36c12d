"""Estimates and choices as words, the same in reasons, prices and refusals."""

from glmplan.estimate import Estimate
from glmplan.quality import Divergence
from glmplan.units import three_digits


def spell(estimate: Estimate) -> str:
    """Value, range and basis: `45.2 (38 to 54, calibrated)`."""
    low, high = three_digits(estimate.low), three_digits(estimate.high)
    return f"{three_digits(estimate.value)} ({low} to {high}, {estimate.basis})"


def spell_divergence(divergence: Divergence | None) -> str:
    """A KL divergence with its range and what it rests on, or that there is none."""
    if divergence is None:
        return "KL divergence not published"
    found = divergence.estimate
    if found is None:
        return f"KL divergence {divergence.rests_on}"
    if not found.high:
        return f"KL divergence 0, {divergence.rests_on}"
    return f"KL divergence {found.value:.2g} ({found.low:.2g} to {found.high:.2g}, {divergence.rests_on})"
