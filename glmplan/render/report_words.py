"""How a report spells numbers and where they come from."""

from typing import Final

from glmplan.estimate import Basis, Estimate

BASIS_WORDS: Final = {
    Basis.MEASURED: "measured",
    Basis.CALIBRATED: "calibrated by published runs",
    Basis.ROOFLINE: "computed",
    Basis.ASSUMED: "assumed",
}


def basis_word(name: str) -> str:
    """The word for a ledger's basis; the name itself for one that is none."""
    return next((word for basis, word in BASIS_WORDS.items() if basis.value == name), name)


def count(number: int) -> str:
    """With commas between thousands."""
    return f"{number:,}"


def rate(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 100:
        return count(round(value))
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(estimate: Estimate) -> str:
    """`51.2 to 115, assumed`."""
    return f"{rate(estimate.low)} to {rate(estimate.high)}, {BASIS_WORDS[estimate.basis]}"
