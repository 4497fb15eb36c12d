"""What tokens cost: hosted price from data, electricity from meters or watts, null with a reason otherwise."""

import dataclasses

import pytest

from glmplan.benchmark import PointSummary
from glmplan.estimate import Basis
from glmplan.launchers.bench_report import summarise
from glmplan.measurement import SpeedSample
from glmplan.planner.cost import cost_of
from glmplan.profiles.hosted_price import hosted_price

SAMPLE = SpeedSample(
    prompt_tokens=1000, output_tokens=101, ttft_ms=1000.0, prefill_tokens_per_s=1000.0, decode_tokens_per_s=50.0,
    tpot_ms=20.0, depth_tokens=0, server_timed=True,
)  # fmt: skip
METERED = dataclasses.replace(SAMPLE, prefill_joules=200.0, decode_joules=500.0)


def summary(*samples: SpeedSample) -> tuple[PointSummary, ...]:
    return (summarise(samples, 0),)


def test_the_hosted_price_is_the_published_one_with_its_source() -> None:
    price = hosted_price()
    assert (price.input_per_million, price.output_per_million, price.currency) == (0.07, 0.40, "USD")
    assert "docs.z.ai" in price.source


def test_metered_energy_becomes_money() -> None:
    cost = cost_of(summary(METERED), [METERED], hosted_price(), kwh_price=0.36, watts=None, no_meter=None)
    # 0.2 J a token of prompt: 2e5 J = 0.0556 kWh a million; 5 J a token of output after the first.
    (point,) = cost.points
    assert point.input_per_million is not None
    assert point.output_per_million is not None
    assert point.input_per_million.value == pytest.approx(0.02)
    assert point.output_per_million.value == pytest.approx(0.5)
    assert cost.electricity is not None
    assert cost.electricity.value == pytest.approx(1000 * 0.02e-6 + 101 * 0.5e-6)
    assert (cost.basis, cost.why) == (Basis.MEASURED, None)
    assert cost.hosted_total == pytest.approx(1000 * 0.07e-6 + 101 * 0.40e-6)
    assert (cost.prompt_tokens, cost.output_tokens) == (1000, 101)


def test_watts_that_a_person_names_are_assumed() -> None:
    slow = dataclasses.replace(SAMPLE, decode_tokens_per_s=25.0)
    cost = cost_of(summary(SAMPLE, slow), [SAMPLE, slow], hosted_price(), kwh_price=0.36, watts=100.0, no_meter="none")
    (point,) = cost.points
    assert point.output_per_million is not None
    price = point.output_per_million
    assert [price.value, price.low, price.high] == pytest.approx([watts / 10 for watts in (100 / 37.5, 2.0, 4.0)])
    assert price.basis is Basis.ASSUMED
    assert cost.basis is Basis.ASSUMED


def test_a_meter_wins_over_named_watts() -> None:
    cost = cost_of(summary(METERED), [METERED], hosted_price(), kwh_price=1.0, watts=9999.0, no_meter=None)
    assert cost.basis is Basis.MEASURED


@pytest.mark.parametrize(
    ("kwh_price", "watts", "words"),
    [
        (None, None, ("--kwh-price", "no energy meter: nothing here; --watts")),
        (0.3, None, ("no energy meter: nothing here; --watts",)),
        (None, 50.0, ("--kwh-price",)),
    ],
)
def test_what_is_not_known_is_null_with_a_reason(
    kwh_price: float | None, watts: float | None, words: tuple[str, ...]
) -> None:
    cost = cost_of(summary(SAMPLE), [SAMPLE], hosted_price(), kwh_price=kwh_price, watts=watts, no_meter="nothing here")
    assert (cost.electricity, cost.basis) == (None, None)
    assert cost.points[0].input_per_million is None
    assert cost.why is not None
    assert all(word in cost.why for word in words)


def test_several_streams_share_the_watts() -> None:
    together = dataclasses.replace(
        SAMPLE, n_streams=2, aggregate_prefill_tokens_per_s=1000.0, aggregate_decode_tokens_per_s=100.0
    )
    rows = (summarise([together, together], 0, 2),)
    cost = cost_of(rows, [together, together], hosted_price(), kwh_price=0.36, watts=100.0, no_meter="none")
    assert cost.points[0].output_per_million is not None
    assert cost.points[0].output_per_million.value == pytest.approx(0.1)
