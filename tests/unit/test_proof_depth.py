"""How deep a proof goes: within the time allowed, as deep as that allows, and for a reason that says the numbers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.commands.plan import make_plan
from glmplan.commands.planned_machine import judge_of, model_of
from glmplan.commands.situation import situation_of
from glmplan.estimate import Basis
from glmplan.measurement import SpeedSample
from glmplan.planner.proof_depth import (
    STEP_TOKENS,
    Pace,
    Paces,
    ProofRoom,
    choose_depth,
    expected_s,
    modelled_paces,
    straight_paces,
)
from glmplan.proof import ProofDepth
from glmplan.proof_settings import ProofKind

ROOM = ProofRoom(context_tokens=32768, output_tokens=24, short_tokens=128)


def straight(prefill_ms: float, per_token_ms: float, decode_ms: float = 100.0) -> Paces:
    """Prefill that grows by `per_token_ms` with every token before it."""
    points = tuple(
        Pace(depth_tokens=depth, prefill_ms=prefill_ms + per_token_ms * depth, decode_ms=decode_ms)
        for depth in (0, 4096)
    )
    return Paces(points=points, basis=Basis.CALIBRATED)


@st.composite
def all_paces(draw: st.DrawFn) -> Paces:
    """Paces that never get faster with depth, as attention does not."""
    depths = draw(st.lists(st.integers(0, 40_000), min_size=1, max_size=6, unique=True).map(sorted))
    prefill, decode = draw(st.floats(0.01, 50)), draw(st.floats(0.1, 500))
    points: list[Pace] = []
    for depth in depths:
        points.append(Pace(depth_tokens=depth, prefill_ms=prefill, decode_ms=decode))
        prefill += draw(st.floats(0, 20))
        decode += draw(st.floats(0, 100))
    return Paces(points=tuple(points), basis=Basis.CALIBRATED)


rooms = st.builds(
    ProofRoom, context_tokens=st.integers(256, 202_752), output_tokens=st.just(24), short_tokens=st.just(128)
)


@given(paces=all_paces(), room=rooms, limit_s=st.floats(0, 3600))
def test_auto_stays_within_its_time_and_uses_it(paces: Paces, room: ProofRoom, limit_s: float) -> None:
    depth = choose_depth(ProofKind.AUTO, room, paces, limit_s=limit_s)
    assert room.short_tokens <= depth.filled_tokens <= depth.full_tokens == room.context_tokens - room.output_tokens
    if depth.filled_tokens > room.short_tokens:
        assert depth.expected_s <= limit_s
        assert depth.expected_s == expected_s(paces, depth.filled_tokens, room.output_tokens)
    if depth.filled_tokens < depth.full_tokens:
        deeper = min(depth.full_tokens, (depth.filled_tokens // STEP_TOKENS + 1) * STEP_TOKENS)
        assert expected_s(paces, deeper, room.output_tokens) > limit_s
    assert depth.why


@given(paces=all_paces(), room=rooms, limits=st.tuples(st.floats(0, 3600), st.floats(0, 3600)))
def test_more_time_never_goes_less_deep(paces: Paces, room: ProofRoom, limits: tuple[float, float]) -> None:
    less, more = (choose_depth(ProofKind.AUTO, room, paces, limit_s=limit) for limit in sorted(limits))
    assert less.filled_tokens <= more.filled_tokens


@given(paces=all_paces(), more=st.integers(1, 5000), filled=st.integers(0, 100_000))
def test_a_longer_prompt_takes_longer(paces: Paces, more: int, filled: int) -> None:
    assert expected_s(paces, filled, 24) < expected_s(paces, filled + more, 24)


@given(paces=all_paces(), room=rooms, limit_s=st.floats(0, 3600))
def test_full_and_short_are_taken_at_their_word(paces: Paces, room: ProofRoom, limit_s: float) -> None:
    full = choose_depth(ProofKind.FULL, room, paces, limit_s=limit_s)
    short = choose_depth(ProofKind.SHORT, room, paces, limit_s=limit_s)
    assert (full.filled_tokens, full.limit_s) == (room.context_tokens - 24, None)
    assert (short.filled_tokens, short.expected_s) == (128, 0.0)
    assert full.expected_s == short.full_expected_s


def test_the_time_is_the_area_under_the_line() -> None:
    # 1,000 tokens of 2 ms and half of 1,000 x 1,000 x 0.001 ms on top, then 10 answers of 100 ms.
    assert expected_s(straight(2.0, 0.001), 1000, 10) == pytest.approx(2.0 + 0.5 + 1.0)
    # Beyond the last point the line goes on.
    assert expected_s(straight(2.0, 0.001), 10_000, 0) == pytest.approx(20.0 + 50.0)


def chosen(kind: ProofKind, limit_s: float, paces: Paces) -> ProofDepth:
    return choose_depth(kind, ROOM, paces, limit_s=limit_s)


def test_every_choice_says_why_with_its_numbers() -> None:
    slow, fast = straight(8.0, 0.0005), straight(0.2, 0.0)
    assert chosen(ProofKind.AUTO, 60, slow).why == (
        "filling 5,632 of 32,768 tokens: about 55 s of the 1 min 0 s allowed; --proof full takes about 8 min 52 s"
    )
    assert chosen(ProofKind.AUTO, 60, fast).why == "filling 32,744 of 32,768 tokens: about 9 s of the 1 min 0 s allowed"
    assert chosen(ProofKind.AUTO, 2, slow).why == (
        "the short measurement only: 512 of 32,768 tokens would take about 7 s, 2 s are allowed (--proof-seconds); "
        "--proof full takes about 8 min 52 s"
    )
    assert chosen(ProofKind.FULL, 2, slow).why == "filling 32,744 of 32,768 tokens, as asked: about 8 min 52 s"
    assert "as asked" in chosen(ProofKind.SHORT, 60, slow).why


def seen(prefill: float, decode: float) -> SpeedSample:
    """The short measurement, at these tokens per second."""
    return SpeedSample(
        prompt_tokens=128,
        output_tokens=24,
        ttft_ms=128_000 / prefill,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        tpot_ms=1000 / decode,
        depth_tokens=0,
        server_timed=True,
    )


def test_the_speed_models_depth_is_scaled_to_what_was_seen() -> None:
    here = situation_of("cpu:32GiB", None)
    plan = make_plan(here, quant="q4_K_M", n_ctx="32768")
    model = model_of(plan)
    assert model is not None
    judge = judge_of(plan, model, here)
    assert judge is not None
    forecast = judge.speed.estimate(plan.placement, depth_tokens=0, prompt_tokens=128)
    as_forecast = seen(forecast.prefill_tokens_per_s.value, forecast.decode_tokens_per_s.value)
    half = seen(forecast.prefill_tokens_per_s.value / 2, forecast.decode_tokens_per_s.value / 2)
    one, twice = (modelled_paces(judge, plan.placement, sample) for sample in (as_forecast, half))
    assert [point.prefill_ms for point in twice.points] == pytest.approx([2 * point.prefill_ms for point in one.points])
    assert [point.decode_ms for point in twice.points] == pytest.approx([2 * point.decode_ms for point in one.points])
    assert (one.points[0].depth_tokens, one.points[-1].depth_tokens) == (0, plan.placement.n_ctx)
    at_16k = judge.speed.estimate(plan.placement, depth_tokens=16384, prompt_tokens=plan.workload.prompt_tokens)
    there = next(point for point in one.points if point.depth_tokens == 16384)
    assert there.decode_ms == pytest.approx(1000 / at_16k.decode_tokens_per_s.value)
    assert there.prefill_ms == pytest.approx(1000 / at_16k.prefill_tokens_per_s.value)


def test_without_a_speed_model_a_line_leads_to_the_plans_own_forecast() -> None:
    speed = make_plan(situation_of("cpu:32GiB", None), quant="q4_K_M", n_ctx="32768").speed
    assert speed.depth_tokens == 8192
    fast = seen(10 * speed.prefill_tokens_per_s.value, 10 * speed.decode_tokens_per_s.value)
    line = straight_paces(fast, speed)
    assert line.basis is Basis.ASSUMED
    assert line.points[1].prefill_ms == pytest.approx(10 * line.points[0].prefill_ms)
    # What is seen slower than the forecast of a depth says nothing of the depth.
    slow = seen(speed.prefill_tokens_per_s.value / 10, speed.decode_tokens_per_s.value / 10)
    level = straight_paces(slow, speed)
    assert level.points[0].prefill_ms == level.points[1].prefill_ms
    assert len(straight_paces(fast, dataclasses.replace(speed, depth_tokens=0)).points) == 1
