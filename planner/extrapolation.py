"""From timings of cuts to the speed of the full model: t(L, d) = fixed + sum over kinds of L x (layer + context x d).

The leading cut has a fixed part of its own: it is there for the context, and in prefill an engine skips the last
layer's feed-forward part for all tokens but one, which in that cut is the only one. In decode a layer counts by the
bytes a token reads of it, in prefill every layer counts as one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

from glmplan.errors import BenchError
from glmplan.estimate import Basis, Estimate
from glmplan.planner.cuts import Stack
from glmplan.planner.least_squares import (
    MEDIAN_EFFICIENCY,
    Fit,
    deviations_of_80_percent,
    fit,
    median,
    relative_noise,
)
from glmplan.rehearsal import Coefficient, Cut, Extrapolation, Phase, Point, Regression, Timing

# Deviation between the line through cuts and the full model, in logarithms: what cuts cannot show (docs/rehearse.md).
STRUCTURE_DEVIATION: Final = {Phase.DECODE: 0.04, Phase.PREFILL: 0.04}
# What a doubling of the deepest measured context adds to that, of the part of the time that the context costs.
_DEVIATION_PER_DOUBLING: Final = 0.1
# No median of few timings is known better than this; without repetitions a single one is known to the second.
_LEAST_ERROR: Final = 0.01
_ERROR_OF_SINGLES: Final = 0.05
_THOUSAND: Final = 1000.0
# Depths that round alike to this many tokens, or within two per cent, are one point.
_SAME_TOKENS: Final = 32.0
_SAME_SHARE: Final = 0.02
_MANY: Final = 10_000

Cell = tuple[str, float]
Part = Literal["fixed", "layer", "context"]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A column: a part of the time of one kind, and how many of it the full model has."""

    part: Part
    kind: str
    in_full_model: float


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted phase: the regression to show, and what it takes to ask it."""

    regression: Regression
    solved: Fit

    def time_ms(self, depth_tokens: float) -> tuple[float, float]:
        """Milliseconds per token of the full model at a depth, and their standard error."""
        return self.solved.predict(
            [
                c.in_full_model * (depth_tokens / _THOUSAND if c.part == "context" else 1.0)
                for c in self.regression.coefficients
            ]
        )

    def tokens_per_s(self, depth_tokens: float) -> Estimate:
        """Speed of the full model at a depth with its 80 % range.

        Raises:
            BenchError: the line gives no positive time.
        """
        value_ms, error_ms = self.time_ms(depth_tokens)
        if value_ms <= 0:
            message = f"the timings of the cuts scatter too much: {self.regression.phase} comes out below zero"
            raise BenchError(message, hint="close what else runs and rehearse again, or allow more with --budget")
        of_context = min(1.0, max(0.0, 1.0 - self.time_ms(0.0)[0] / value_ms))
        doublings = max(0.0, math.log2(max(depth_tokens, 1.0) / max(self.regression.deepest_tokens, _SAME_TOKENS)))
        structure = STRUCTURE_DEVIATION[self.regression.phase] + _DEVIATION_PER_DOUBLING * of_context * doublings
        of_line = deviations_of_80_percent(self.solved.freedom) * error_ms / value_ms
        spread = math.exp(math.hypot(of_line, deviations_of_80_percent(_MANY) * structure))
        rate = 1000.0 / value_ms
        return Estimate(value=rate, low=rate / spread, high=rate * spread, basis=Basis.CALIBRATED)


def extrapolated(decode: Line, prefill: Line, depths: Sequence[int], *, batch_tokens: int) -> tuple[Extrapolation, ...]:
    """Speeds of the full model at `depths`; prefill as the next batch of `batch_tokens` after them."""
    deepest = decode.regression.deepest_tokens
    return tuple(
        Extrapolation(
            depth_tokens=depth,
            decode_tokens_per_s=decode.tokens_per_s(depth),
            prefill_tokens_per_s=prefill.tokens_per_s(depth + batch_tokens / 2),
            beyond=depth > deepest * (1.0 + _SAME_SHARE) + _SAME_TOKENS,
        )
        for depth in depths
    )


def fit_phase(stack: Stack, cuts: Sequence[Cut], timings: Sequence[Timing], phase: Phase) -> Line:
    """Fit the timings of one phase; disturbed ones count only where there are no others.

    Raises:
        BenchError: too few timings to tell the parts of the time apart.
    """
    by_name = {cut.name: cut for cut in cuts}
    cells = _cells([timing for timing in timings if timing.phase is phase])
    unknowns = _unknowns(stack, [by_name[name] for name, _ in cells], phase)
    if len(cells) < len(unknowns):
        message = f"{len(cells)} points of {phase} do not determine the {len(unknowns)} parts of its time"
        raise BenchError(message, hint="allow a longer --budget")
    rows = [[_factor(stack, by_name[name], depth, unknown, phase) for unknown in unknowns] for name, depth in cells]
    noise, freedom = relative_noise(list(cells.values()))
    medians = [median(values) for values in cells.values()]
    errors = [_standard_error(values, noise) for values in cells.values()]
    solved = fit(rows, medians, errors, error_freedom=freedom)
    points = tuple(
        Point(
            cut=name,
            depth_tokens=depth,
            samples=len(values),
            median_ms=middle,
            lowest_ms=min(values),
            highest_ms=max(values),
            standard_error_ms=error,
            fitted_ms=solved.predict(row)[0],
        )
        for ((name, depth), values), middle, error, row in zip(cells.items(), medians, errors, rows, strict=True)
    )
    return Line(regression=_regression(phase, unknowns, solved, points, noise), solved=solved)


def _cells(timings: Sequence[Timing]) -> dict[Cell, list[float]]:
    """Times by cut and depth."""
    groups: dict[Cell, list[Timing]] = {}
    for timing in timings:
        near = next((cell for cell in groups if cell[0] == timing.cut and _is_near(cell[1], timing.depth_tokens)), None)
        groups.setdefault(near or (timing.cut, timing.depth_tokens), []).append(timing)
    cells: dict[Cell, list[float]] = {}
    for (cut, _), group in groups.items():
        quiet = [timing for timing in group if not timing.disturbed] or group
        cells[cut, fmean(timing.depth_tokens for timing in quiet)] = [timing.ms_per_token for timing in quiet]
    return cells


def _is_near(one: float, other: float) -> bool:
    return abs(one - other) <= max(_SAME_TOKENS, _SAME_SHARE * max(one, other))


def _unknowns(stack: Stack, used: Sequence[Cut], phase: Phase) -> list[Unknown]:
    unknowns = [Unknown("fixed", "", 1.0)]
    unknowns += [Unknown("fixed", name, 0.0) for name in dict.fromkeys(cut.name for cut in used if cut.is_lead)]
    for share in stack.shares():
        many = share.by_bytes if phase is Phase.DECODE else share.count
        unknowns.append(Unknown("layer", share.kind.name, many))
    for device in dict.fromkeys(stack.devices[: stack.n_main]):
        unknowns.append(Unknown("context", device, float(stack.layers_on(device))))
    return unknowns


def _factor(stack: Stack, cut: Cut, depth: float, unknown: Unknown, phase: Phase) -> float:
    """How much of an unknown a token of a cut at a depth takes."""
    if unknown.part == "fixed":
        return float(unknown.kind == (cut.name if cut.is_lead else ""))
    if unknown.part == "context":
        return sum(kind.device == unknown.kind for kind in cut.kinds) * depth / _THOUSAND
    body = list(zip(cut.layers, cut.kinds, strict=True))[cut.n_lead :]
    return sum(
        stack.weight(layer) if phase is Phase.DECODE else 1.0 for layer, kind in body if kind.name == unknown.kind
    )


def _standard_error(values: Sequence[float], noise: float | None) -> float:
    """Of the median of timings whose single deviation is `noise` of their size."""
    single = _ERROR_OF_SINGLES if noise is None else noise
    scatter = MEDIAN_EFFICIENCY if len(values) > 2 else 1.0
    return median(values) * max(_LEAST_ERROR, scatter * single / math.sqrt(len(values)))


def _regression(
    phase: Phase, unknowns: Sequence[Unknown], solved: Fit, points: tuple[Point, ...], noise: float | None
) -> Regression:
    coefficients = tuple(
        Coefficient(
            part=unknown.part,
            kind=unknown.kind,
            ms=solved.coefficients[index],
            standard_error_ms=solved.standard_error(index),
            in_full_model=unknown.in_full_model,
        )
        for index, unknown in enumerate(unknowns)
    )
    return Regression(
        phase=phase,
        coefficients=coefficients,
        points=points,
        relative_noise=noise,
        residual=fmean(abs(point.fitted_ms / point.median_ms - 1.0) for point in points),
        freedom=solved.freedom,
        deepest_tokens=max(point.depth_tokens for point in points),
    )
