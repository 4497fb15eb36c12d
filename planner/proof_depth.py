"""How much of the context a proof fills: as much as fits the time that the user allows.

A token of prompt takes longer the more tokens lie before it. The speed model knows by how much; what the first short
measurement took says how far the model is off on this machine, and its times are multiplied by that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from glmplan.estimate import Basis, SpeedEstimate
from glmplan.measurement import SpeedSample
from glmplan.placement import Placement
from glmplan.planner.curves import depth_points
from glmplan.planner.judging import Judge
from glmplan.planner.offload import least
from glmplan.proof import ProofDepth
from glmplan.proof_settings import ProofKind
from glmplan.units import format_seconds

# Depths are multiples of this, except the whole context.
STEP_TOKENS: Final = 512


@dataclass(frozen=True, slots=True)
class Pace:
    """Milliseconds of one token of prompt and of one of output, with `depth_tokens` before them."""

    depth_tokens: int
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Paces:
    """Paces by rising depth, straight lines between them and beyond the last; and what they rest on."""

    points: tuple[Pace, ...]
    basis: Basis


@dataclass(frozen=True, slots=True)
class ProofRoom:
    """One slot: its context, the tokens of the answer, and those of the short measurement's prompt."""

    context_tokens: int
    output_tokens: int
    short_tokens: int

    @property
    def full_tokens(self) -> int:
        """The longest prompt that leaves room for the answer."""
        return max(self.short_tokens, self.context_tokens - self.output_tokens)


def modelled_paces(judge: Judge, placement: Placement, seen: SpeedSample) -> Paces:
    """The speed model's paces of the workload's prompts, scaled to what was seen without context."""
    found = judge.speed.estimate(placement, depth_tokens=seen.depth_tokens, prompt_tokens=seen.prompt_tokens)
    prefill = found.prefill_tokens_per_s.value / seen.prefill_tokens_per_s
    decode = found.decode_tokens_per_s.value / seen.decode_tokens_per_s
    points = (
        Pace(
            depth_tokens=at.depth_tokens,
            prefill_ms=prefill * 1000 / at.prefill_tokens_per_s.value,
            decode_ms=decode * 1000 / at.decode_tokens_per_s.value,
        )
        for at in depth_points(judge, placement, at=0)
    )
    return Paces(points=tuple(points), basis=Basis.CALIBRATED)


def straight_paces(seen: SpeedSample, planned: SpeedEstimate) -> Paces:
    """A straight line from what was seen to the plan's own forecast, where no speed model can be asked.

    A forecast that is faster at its depth than what was seen without context says nothing of the depth: the line is
    level then.
    """
    here = Pace(
        depth_tokens=seen.depth_tokens,
        prefill_ms=1000 / seen.prefill_tokens_per_s,
        decode_ms=1000 / seen.decode_tokens_per_s,
    )
    if planned.depth_tokens <= seen.depth_tokens:
        return Paces(points=(here,), basis=Basis.ASSUMED)
    there = Pace(
        depth_tokens=planned.depth_tokens,
        prefill_ms=max(here.prefill_ms, 1000 / planned.prefill_tokens_per_s.value),
        decode_ms=max(here.decode_ms, 1000 / planned.decode_tokens_per_s.value),
    )
    return Paces(points=(here, there), basis=Basis.ASSUMED)


def expected_s(paces: Paces, filled_tokens: int, output_tokens: int) -> float:
    """Seconds for a prompt of `filled_tokens` on an empty slot and `output_tokens` after it."""
    return (_filling_ms(paces.points, filled_tokens) + output_tokens * _at(paces.points, filled_tokens)[1]) / 1000


def _filling_ms(points: Sequence[Pace], upto: int) -> float:
    """The area under the prefill line from an empty context to `upto` tokens."""
    marks = [0, *(point.depth_tokens for point in points if 0 < point.depth_tokens < upto), upto]
    heights = [_at(points, mark)[0] for mark in marks]
    return sum(
        (end - start) * (low + high) / 2
        for (start, end), (low, high) in zip(pairwise(marks), pairwise(heights), strict=True)
    )


def _at(points: Sequence[Pace], depth: int) -> tuple[float, float]:
    """Milliseconds of a token of prompt and of output at `depth`."""
    if depth <= points[0].depth_tokens or len(points) == 1:
        return points[0].prefill_ms, points[0].decode_ms
    pairs = list(pairwise(points))
    before, after = next((pair for pair in pairs if depth <= pair[1].depth_tokens), pairs[-1])
    share = (depth - before.depth_tokens) / (after.depth_tokens - before.depth_tokens)
    # Beyond the last point nothing gets faster.
    prefill, decode = (
        low + (high - low if share <= 1 else max(0.0, high - low)) * share
        for low, high in ((before.prefill_ms, after.prefill_ms), (before.decode_ms, after.decode_ms))
    )
    return prefill, decode


def choose_depth(kind: ProofKind, room: ProofRoom, paces: Paces, *, limit_s: float) -> ProofDepth:
    """How much to fill: everything, nothing beyond the short measurement, or as much as `limit_s` seconds allow."""
    full = room.full_tokens
    filled = {ProofKind.FULL: full, ProofKind.SHORT: room.short_tokens}.get(kind)
    if filled is None:
        filled = _deepest(room, paces, limit_s)
    depth = ProofDepth(
        filled_tokens=filled,
        full_tokens=full,
        context_tokens=room.context_tokens,
        expected_s=0.0 if filled == room.short_tokens else expected_s(paces, filled, room.output_tokens),
        full_expected_s=expected_s(paces, full, room.output_tokens),
        limit_s=limit_s if kind is ProofKind.AUTO else None,
        basis=paces.basis,
        why="",
    )
    return replace(depth, why=_why(kind, room, depth, paces))


def _deepest(room: ProofRoom, paces: Paces, limit_s: float) -> int:
    """The largest multiple of the step that fits the time, or everything, or the short prompt."""
    full = room.full_tokens

    def is_too_long(steps: int) -> bool:
        return expected_s(paces, min(full, steps * STEP_TOKENS), room.output_tokens) > limit_s

    too_long = least(1, -(-full // STEP_TOKENS), is_too_long)
    return full if too_long is None else max(room.short_tokens, (too_long - 1) * STEP_TOKENS)


def _why(kind: ProofKind, room: ProofRoom, depth: ProofDepth, paces: Paces) -> str:
    whole = f"{room.context_tokens:,} tokens"
    all_of_it = format_seconds(depth.full_expected_s)
    if depth.full_tokens == room.short_tokens:
        return f"the short measurement fills the context of {whole}"
    if kind is ProofKind.SHORT:
        return f"the short measurement only, as asked; --proof full takes about {all_of_it}"
    filling = f"filling {depth.filled_tokens:,} of {whole}"
    if kind is ProofKind.FULL:
        return f"{filling}, as asked: about {all_of_it}"
    limit = depth.limit_s or 0.0
    if depth.filled_tokens == room.short_tokens:
        least = min(STEP_TOKENS, depth.full_tokens)
        takes = format_seconds(expected_s(paces, least, room.output_tokens))
        return (
            f"the short measurement only: {least:,} of {whole} would take about {takes}, {format_seconds(limit)} are "
            f"allowed (--proof-seconds); --proof full takes about {all_of_it}"
        )
    takes = f"about {format_seconds(depth.expected_s)} of the {format_seconds(limit)} allowed"
    if depth.filled_tokens == depth.full_tokens:
        return f"{filling}: {takes}"
    return f"{filling}: {takes}; --proof full takes about {all_of_it}"
