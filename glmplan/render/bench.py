"""Benchmarks for a person: tables by depth and streams, prices, the history, and two records side by side."""

from collections.abc import Iterator, Sequence

from glmplan.benchmark import BenchComparison, BenchReport, ComparedRecord, Cost, PointSummary, RecordList
from glmplan.estimate import Estimate, SpeedEstimate
from glmplan.measurement import SpeedSample
from glmplan.render.run import BASIS_WORDS, SYNTHETIC, table


def bench_lines(report: BenchReport, forecast: SpeedEstimate | None) -> list[str]:
    """Medians and ranges by point, the plan's forecast beneath, what was left out, and what it costs.

    Args:
        report: what was measured.
        forecast: the plan's speeds; None for a server without a plan.
    """
    several = any(row.n_streams > 1 for row in report.summary)
    head = ("DEPTH", *(["STREAMS"] if several else []), "PREFILL tokens/s", "DECODE tokens/s",
            "FIRST TOKEN ms p50 / p95", "PER TOKEN ms p50 / p95")  # fmt: skip
    cells = [head, *(_point_cells(row, several=several) for row in report.summary)]
    if forecast is not None:
        prefill, decode = forecast.prefill_tokens_per_s, forecast.decode_tokens_per_s
        blank = ("1",) if several else ()
        cells.append((f"{forecast.depth_tokens}, forecast", *blank, _range(prefill), _range(decode), "-", "-"))
    lines = table(cells)
    lines += list(_energy(report))
    lines += [
        f"left out: depth {left.depth_tokens}"
        + (f", {left.n_streams} streams" if left.n_streams > 1 else "")
        + f": {left.why}"
        for left in report.left_out
    ]
    if report.cost is not None:
        lines += ["", *cost_lines(report.cost)]
    return [*lines, *([SYNTHETIC] if report.measurement.synthetic else [])]


def _point_cells(row: PointSummary, *, several: bool) -> tuple[str, ...]:
    def rate(own: Estimate, all_of_them: Estimate) -> str:
        return _range(own) if row.n_streams == 1 else f"{_range(own)}; all {all_of_them.value:.1f}"

    return (
        str(row.depth_tokens),
        *([str(row.n_streams)] if several else []),
        rate(row.prefill_tokens_per_s, row.aggregate_prefill_tokens_per_s),
        rate(row.decode_tokens_per_s, row.aggregate_decode_tokens_per_s),
        f"{row.ttft_ms.p50:.0f} / {row.ttft_ms.p95:.0f}",
        f"{row.tpot_ms.p50:.1f} / {row.tpot_ms.p95:.1f}",
    )


def _energy(report: BenchReport) -> Iterator[str]:
    energy = report.measurement.energy
    for row in report.summary:
        prompt, output = row.joules_per_prompt_token, row.joules_per_output_token
        if output is not None:
            of_prompt = f"{prompt.value:.2f} J a token of prompt, " if prompt is not None else ""
            yield f"energy at depth {row.depth_tokens}: {of_prompt}{output.value:.2f} J a token of output (measured)"
    if energy is not None and energy.meter is None:
        yield f"energy: not measured: {energy.why}"
    elif energy is not None:
        yield f"energy: {energy.meter} counts {', '.join(energy.covers)}, nothing else"


def cost_lines(cost: Cost) -> list[str]:
    """The same tokens at the hosted price and as electricity here."""
    hosted = cost.hosted
    rates = f"{hosted.input_per_million:g} and {hosted.output_per_million:g} {hosted.currency} a million"
    tokens = f"these {cost.prompt_tokens} tokens of prompt and {cost.output_tokens} of output"
    lines = [f"{tokens} at {hosted.name}: {_money(cost.hosted_total, hosted.currency)} ({rates})"]
    if cost.electricity is None:
        return [*lines, f"electricity here: not known: {cost.why}"]
    word = BASIS_WORDS[cost.electricity.basis]
    lines.append(
        f"electricity here at {cost.kwh_price:g} {hosted.currency} a kWh: "
        f"{_money(cost.electricity.value, hosted.currency)} ({word})"
    )
    for point in cost.points:
        if point.input_per_million is not None and point.output_per_million is not None:
            streams = "" if point.n_streams == 1 else f", {point.n_streams} streams"
            lines.append(
                f"  a million at depth {point.depth_tokens}{streams}: {point.input_per_million.value:.2f} of prompt, "
                f"{point.output_per_million.value:.2f} {hosted.currency} of output"
            )
    return lines


def _money(amount: float, currency: str) -> str:
    return f"{amount:.6f} {currency}" if amount < 0.01 else f"{amount:.2f} {currency}"


def _range(estimate: Estimate) -> str:
    return f"{estimate.value:.1f}, {estimate.low:.1f} to {estimate.high:.1f} ({BASIS_WORDS[estimate.basis]})"


def sample_line(sample: SpeedSample) -> str:
    """One sample while a measurement goes on."""
    clock = "engine's clock" if sample.server_timed else "client's clock"
    streams = "" if sample.n_streams == 1 else f", one of {sample.n_streams} streams"
    return (
        f"depth {sample.depth_tokens}{streams}: prefill {sample.prefill_tokens_per_s:.1f}, "
        f"decode {sample.decode_tokens_per_s:.1f} tokens/s ({clock}), first token {sample.ttft_ms:.0f} ms"
    )


def fill_text(done: int, depth: int) -> str:
    """How far a prefix has come into the cache."""
    return f"filling the context: {done} of {depth} tokens"


def list_lines(listed: RecordList) -> list[str]:
    """Stored measurements as a table."""
    if not listed.records:
        return [f"nothing is stored in {listed.folder}: glmplan bench measures"]
    rows = [("NUMBER", "TIME", "BY", "ENGINE", "MODEL", "MEASURED AT", "MACHINE")]
    rows += [
        (
            str(one.number),
            one.created_at,
            one.origin,
            f"{one.engine} {one.engine_version or ''}".strip(),
            f"{one.model} {one.quantization}{' (synthetic)' if one.synthetic else ''}",
            "; ".join(one.points),
            one.machine_fingerprint,
        )
        for one in listed.records
    ]
    return [*table(rows), f"kept in {listed.folder}"]


def comparison_lines(found: BenchComparison) -> list[str]:
    """Two records side by side, and which differences are more than noise."""
    lines = [f"A  {_record(found.a)}", f"B  {_record(found.b)}"]
    lines += [f"   differs: {difference}" for difference in found.differences]
    rows: list[Sequence[str]] = [("POINT", "SPEED tokens/s", "A", "B", "B / A", "SPREAD", "VERDICT")]
    for speed in found.speeds:
        streams = "" if speed.n_streams == 1 else f", {speed.n_streams} streams"
        spread = "-" if speed.spread_ratio is None else f"{100 * speed.spread_ratio:.1f} %"
        rows.append(
            (
                f"depth {speed.depth_tokens}{streams}",
                speed.metric.removesuffix("_tokens_per_s"),
                f"{speed.a.value:.1f}",
                f"{speed.b.value:.1f}",
                f"{speed.ratio:.3f}",
                spread,
                _verdict(speed.ratio, exceeds=speed.exceeds_spread),
            )
        )
    lines += ["", *table(rows)] if found.speeds else ["", "no point is in both records"]
    lines += [f"only in A: {name}" for name in found.only_in_a] + [f"only in B: {name}" for name in found.only_in_b]
    return lines


def _verdict(ratio: float, *, exceeds: bool | None) -> str:
    if exceeds is None:
        return "fewer than 3 samples: spread not known"
    if not exceeds:
        return "within the spread"
    return "B is faster" if ratio > 1 else "A is faster"


def _record(one: ComparedRecord) -> str:
    synthetic = " (synthetic)" if one.synthetic else ""
    return f"{one.name}: {one.created_at}, {one.engine} {one.engine_version or ''}, {one.file}{synthetic}"
