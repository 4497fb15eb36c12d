"""Electricity of tokens beside their hosted price; pure arithmetic.

    price = joules per token x tokens / 3.6e6 J/kWh x price per kWh

Joules per token are the meter's, or watts / (tokens/s of all streams) when a person names the watts.
"""

from collections.abc import Sequence
from typing import Final

from glmplan.benchmark import Cost, HostedPrice, PointCost, PointSummary
from glmplan.estimate import Basis, Estimate
from glmplan.measurement import SpeedSample

JOULES_PER_KWH: Final = 3.6e6
_MILLION: Final = 1e6


def cost_of(
    summary: Sequence[PointSummary],
    samples: Sequence[SpeedSample],
    hosted: HostedPrice,
    *,
    kwh_price: float | None,
    watts: float | None,
    no_meter: str | None,
) -> Cost:
    """What the timed tokens cost hosted and here.

    Args:
        summary: points, with energy per token where a meter was there.
        samples: the requests that were timed.
        hosted: the provider's price.
        kwh_price: price of a kilowatt-hour in the currency of `hosted`; None: not said.
        watts: what the machine takes while it works, if a person says so; used where there is no meter.
        no_meter: why there is no meter.
    """
    prompt = sum(sample.prompt_tokens for sample in samples)
    output = sum(sample.output_tokens for sample in samples)
    points = tuple(_point(point, kwh_price, watts) for point in summary)
    known = [price for point in points for price in (point.input_per_million, point.output_per_million)]
    electricity = None if None in known else _total(samples, summary, points)
    return Cost(
        hosted=hosted,
        prompt_tokens=prompt,
        output_tokens=output,
        hosted_total=(prompt * hosted.input_per_million + output * hosted.output_per_million) / _MILLION,
        kwh_price=kwh_price,
        electricity=electricity,
        basis=None if electricity is None else electricity.basis,
        why=None if electricity is not None else _why(kwh_price, no_meter),
        points=points,
    )


def joules_per_token(point: PointSummary, watts: float | None) -> tuple[Estimate | None, Estimate | None]:
    """Of a token of prompt and a token of output: as metered, or from `watts`; None where neither is known."""
    metered = point.joules_per_prompt_token, point.joules_per_output_token
    if metered[0] is not None and metered[1] is not None:
        return metered
    if watts is None:
        return None, None
    rates = point.aggregate_prefill_tokens_per_s, point.aggregate_decode_tokens_per_s
    prompt, output = (
        Estimate(value=watts / rate.value, low=watts / rate.high, high=watts / rate.low, basis=Basis.ASSUMED)
        for rate in rates
    )
    return prompt, output


def _point(point: PointSummary, kwh_price: float | None, watts: float | None) -> PointCost:
    prompt, output = joules_per_token(point, watts)
    return PointCost(
        depth_tokens=point.depth_tokens,
        n_streams=point.n_streams,
        input_per_million=_scaled(prompt, kwh_price, _MILLION),
        output_per_million=_scaled(output, kwh_price, _MILLION),
    )


def _scaled(joules: Estimate | None, kwh_price: float | None, tokens: float) -> Estimate | None:
    if joules is None or kwh_price is None:
        return None
    factor = tokens / JOULES_PER_KWH * kwh_price
    return Estimate(value=joules.value * factor, low=joules.low * factor, high=joules.high * factor, basis=joules.basis)


def _total(samples: Sequence[SpeedSample], summary: Sequence[PointSummary], points: Sequence[PointCost]) -> Estimate:
    """Sum over points: their tokens at their price; samples lie point after point."""
    value = low = high = 0.0
    start = 0
    for row, price in zip(summary, points, strict=True):
        own = samples[start : start + row.samples]
        start += row.samples
        sums = sum(one.prompt_tokens for one in own), sum(one.output_tokens for one in own)
        for tokens, each in zip(sums, (price.input_per_million, price.output_per_million), strict=True):
            if each is not None:
                value += tokens * each.value / _MILLION
                low += tokens * each.low / _MILLION
                high += tokens * each.high / _MILLION
    bases = [price.input_per_million.basis for price in points if price.input_per_million is not None]
    return Estimate(value=value, low=low, high=high, basis=Basis.ASSUMED if Basis.ASSUMED in bases else bases[0])


def _why(kwh_price: float | None, no_meter: str | None) -> str:
    missing = [] if kwh_price is not None else ["the price of a kilowatt-hour is not said (--kwh-price)"]
    if no_meter:
        missing.append(f"no energy meter: {no_meter}; --watts says what the machine takes")
    return "; ".join(missing) or "the energy meter did not answer"
