"""Weighted least squares in closed form, with standard errors and ranges; a handful of unknowns, no library.

beta = (X'WX)^-1 X'Wy with W = 1 / se^2; its covariance is (X'WX)^-1, times chi^2 / dof where the points scatter more
than their standard errors say (Birge's ratio; R. T. Birge, Phys. Rev. 40, 207, 1932).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from glmplan.errors import InputError

# 80 % of a normal distribution lie within this many deviations.
_NORMAL: Final = 1.2815515655446004
_SINGULAR: Final = 1e-12
# A median of 3 to 9 samples scatters this much more than their mean, and a normal deviation over its median size.
MEDIAN_EFFICIENCY: Final = 1.2
NORMAL_OVER_MAD: Final = 1.482602218505602


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients in the order of the columns, their covariance, and how well the points agree.

    `freedom` is what a range may trust: points beyond the unknowns, and what stood behind their standard errors.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    chi_squared: float
    freedom: int

    def standard_error(self, index: int) -> float:
        """Standard error of one coefficient."""
        return math.sqrt(max(0.0, self.covariance[index][index]))

    def predict(self, row: Sequence[float]) -> tuple[float, float]:
        """Value and standard error at a row of the unknowns' factors."""
        value = sum(x * b for x, b in zip(row, self.coefficients, strict=True))
        spread = _times(self.covariance, row)
        return value, math.sqrt(max(0.0, sum(x * s for x, s in zip(row, spread, strict=True))))


def fit(
    rows: Sequence[Sequence[float]], values: Sequence[float], errors: Sequence[float], *, error_freedom: int = 0
) -> Fit:
    """Fit `values` = rows x coefficients.

    Args:
        rows: one factor per unknown and point.
        values: what was measured.
        errors: standard errors of `values`, above 0.
        error_freedom: degrees of freedom that `errors` were estimated with.

    Raises:
        InputError: the points do not determine the unknowns.
    """
    n = len(rows[0]) if rows else 0
    weights = [1.0 / (error * error) for error in errors]
    # Columns are scaled to one, so that depths in thousands and layers in units are inverted alike.
    scale = [max((abs(row[i]) for row in rows), default=0.0) or 1.0 for i in range(n)]
    scaled = [[row[i] / scale[i] for i in range(n)] for row in rows]
    normal = [
        [sum(w * row[i] * row[j] for w, row in zip(weights, scaled, strict=True)) for j in range(n)] for i in range(n)
    ]
    target = [sum(w * row[i] * y for w, row, y in zip(weights, scaled, values, strict=True)) for i in range(n)]
    inverse = _inverse(normal)
    beta = _times(inverse, target)
    fitted = [sum(x * b for x, b in zip(row, beta, strict=True)) for row in scaled]
    chi = sum(w * (y - f) ** 2 for w, y, f in zip(weights, values, fitted, strict=True))
    spare = len(rows) - n
    widened = max(1.0, chi / spare) if spare > 0 else 1.0
    return Fit(
        coefficients=tuple(b / s for b, s in zip(beta, scale, strict=True)),
        covariance=tuple(tuple(widened * inverse[i][j] / scale[i] / scale[j] for j in range(n)) for i in range(n)),
        chi_squared=chi,
        freedom=spare + error_freedom,
    )


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss-Jordan elimination with pivots.

    Raises:
        InputError: the matrix is singular.
    """
    n = len(matrix)
    work = [[*row, *(1.0 if i == j else 0.0 for j in range(n))] for i, row in enumerate(matrix)]
    largest = max((abs(value) for row in matrix for value in row), default=0.0)
    for column in range(n):
        pivot = max(range(column, n), key=lambda i: abs(work[i][column]))
        if abs(work[pivot][column]) <= _SINGULAR * largest:
            message = "the measured points do not determine every part of the time"
            raise InputError(message, hint="measure cuts of different layer counts and depths")
        work[column], work[pivot] = work[pivot], work[column]
        head = work[column][column]
        work[column] = [value / head for value in work[column]]
        for i in range(n):
            factor = work[i][column]
            if i != column and factor:
                work[i] = [value - factor * top for value, top in zip(work[i], work[column], strict=True)]
    return [row[n:] for row in work]


def deviations_of_80_percent(freedom: int) -> float:
    """Student's t that 80 % lie within; within 1 % from 3 degrees on (Abramowitz and Stegun 26.7.5)."""
    nu, z = max(1, freedom), _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / nu + second / nu**2 + third / nu**3


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def relative_noise(cells: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Deviation of single samples of a cell, as a part of its median; None where no cell has two.

    From the median of the differences of all pairs: a sample that something disturbed counts little, whatever its
    size (the idea of Rousseeuw and Croux's Q_n, 1993).

    Returns:
        The deviation and its degrees of freedom.
    """
    pairs = [abs(one - other) / median(cell) / math.sqrt(2.0) for cell in cells for one, other in combinations(cell, 2)]
    if not pairs:
        return None, 0
    return NORMAL_OVER_MAD * median(pairs), sum(len(cell) - 1 for cell in cells if len(cell) > 1)
