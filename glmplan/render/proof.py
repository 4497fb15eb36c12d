"""The proof of a launch for a person: the ledger line by line, speeds beside their forecasts, conversations."""

from collections.abc import Iterable, Sequence

from glmplan.estimate import Estimate
from glmplan.measurement import MemoryReport
from glmplan.plan import Plan
from glmplan.proof import LedgerLine, LedgerPart, Proof, RoundTrip, SpeedLine
from glmplan.render.run import BASIS_WORDS, SYNTHETIC, table, where_lines
from glmplan.running import LaunchReport
from glmplan.units import MIB, format_bytes

_WARNING = "WARNING: "


def warnings_of(ledger: Iterable[LedgerLine], plan: Plan, trips: Sequence[RoundTrip]) -> tuple[str, ...]:
    """What nobody should overlook: lines outside the ledger's range, with what was left there, and failed trips."""
    margins = {device.id: device.margin_bytes for device in plan.memory.devices}
    outside = [_outside(line, margins.get(line.device)) for line in ledger if line.within_range is False]
    names = ("tool call", "thinking on and off")
    failed = [f"{name}: {trip.why}" for name, trip in zip(names, trips, strict=True) if trip.passed is False]
    return (*outside, *failed)


def _outside(line: LedgerLine, margin: int | None) -> str:
    what = f"{line.device} {line.part.words}"
    if line.measured_bytes is None:
        return f"{what}: {format_bytes(line.forecast_bytes or 0)} planned, but {line.why}"
    if not line.forecast_bytes:
        return f"{what}: {format_bytes(line.measured_bytes)} measured, but {line.why}"
    more = line.measured_bytes > line.forecast_bytes
    bound = (line.high_bytes if more else line.low_bytes) or 0
    left = "" if margin is None else f"; the plan had left {format_bytes(margin)} free there"
    return (
        f"{what}: {format_bytes(line.measured_bytes)} measured, {format_bytes(line.forecast_bytes)} forecast "
        f"({_difference(line)}); the ledger states at {'most' if more else 'least'} {format_bytes(bound)}{left}"
    )


def report_lines(report: LaunchReport) -> list[str]:
    """A launch from its address to its last warning."""
    synthetic = [SYNTHETIC] if report.synthetic else []
    return [*where_lines(report), "", *_held_lines(report.memory), *_proof_lines(report.proof), *synthetic]


def _held_lines(memory: MemoryReport) -> list[str]:
    """What an engine that tells only sums holds."""
    if memory.total_bytes is None:
        return []
    return [f"holds      {format_bytes(memory.total_bytes)}, {format_bytes(memory.gpu_bytes or 0)} of it in GPU memory"]


def _proof_lines(proof: Proof) -> list[str]:
    lines = [*_ledger_lines(proof.ledger), ""]
    if proof.depth is not None:
        lines += [f"proof      {proof.depth.why}"]
    lines += _speed_lines(proof.speeds)
    lines += [_trip_line("tool call", proof.tool_call), _trip_line("thinking", proof.thinking)]
    return lines + [_WARNING + text for text in proof.warnings]


def _ledger_lines(ledger: Sequence[LedgerLine]) -> list[str]:
    rows = [("memory", "", "forecast", "measured", "difference")]
    before = ""
    for line in ledger:
        if not line.forecast_bytes and line.measured_bytes is None:
            continue
        device, before = "" if line.device == before else line.device, line.device
        rows.append((device, line.part.words, _forecast(line), _measured(line), _remark(line)))
    return table(rows)


def _forecast(line: LedgerLine) -> str:
    if line.forecast_bytes is None:
        return "-"
    basis = f" ({BASIS_WORDS[line.basis]})" if line.basis is not None else ""
    return format_bytes(line.forecast_bytes) + basis


def _measured(line: LedgerLine) -> str:
    return "-" if line.measured_bytes is None else format_bytes(line.measured_bytes)


def _remark(line: LedgerLine) -> str:
    """The difference, and why it says less than it seems."""
    parts = [_difference(line), line.why or ""]
    if line.within_range is False and not line.why:
        parts.append("outside the stated range")
    if line.part is LedgerPart.RESIDENT_SET:
        parts.append("mapped file pages included")
    return "; ".join(part for part in parts if part)


def _difference(line: LedgerLine) -> str:
    if line.difference_bytes is None:
        return ""
    share = "" if line.difference_ratio is None else f", {_signed(100 * line.difference_ratio)} %"
    return f"{_signed(line.difference_bytes / MIB)} MiB{share}"


def _signed(value: float) -> str:
    """One decimal with its sign, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:+.1f}"


def _speed_lines(speeds: Sequence[SpeedLine]) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    for line in speeds:
        seen, forecast = line.measured, line.forecast
        rows += [
            (f"speed at {seen.depth_tokens:,} tokens", "forecast", "measured"),
            (
                "  prefill",
                _rate(forecast.prefill_tokens_per_s if forecast else None),
                f"{seen.prefill_tokens_per_s:.1f} tokens/s",
            ),
            (
                "  decode",
                _rate(forecast.decode_tokens_per_s if forecast else None),
                f"{seen.decode_tokens_per_s:.1f} tokens/s",
            ),
            ("  first token", "-", f"{seen.ttft_ms:.0f} ms after {seen.prompt_tokens} tokens of prompt"),
        ]
    unknown = dict.fromkeys(line.why for line in speeds if line.why)
    return [*table(rows), *(f"no forecast there: {why}" for why in unknown)] if rows else []


def _rate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    word = BASIS_WORDS[estimate.basis]
    return f"{estimate.value:.1f} tokens/s, {estimate.low:.1f} to {estimate.high:.1f} ({word})"


def _trip_line(name: str, trip: RoundTrip) -> str:
    if trip.passed is None:
        return f"{name:<10} not tried: {trip.why}"
    said = "; ".join(trip.steps)
    return f"{name:<10} works: {said}" if trip.passed else f"{name:<10} FAILED: {trip.why}"
