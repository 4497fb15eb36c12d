"""Numbers as people read them."""

import pytest

from glmplan.units import three_digits


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0451, "0.0451"),
        (4.0, "4"),
        (45.26, "45.3"),
        (999.4, "999"),
        (999.6, "1,000"),
        (1287.0, "1,290"),
        (12_345.0, "12,300"),
    ],
)
def test_three_digits_never_have_an_exponent(value: float, told: str) -> None:
    assert three_digits(value) == told
