"""A rehearsal for a person: what is allocated, what a layer costs, and how fast the whole will be."""

from collections.abc import Iterator, Sequence

from glmplan.estimate import Estimate
from glmplan.rehearsal import Allocation, Coefficient, Regression, Rehearsal
from glmplan.units import format_bytes, three_digits

_PARTS = {"fixed": "outside the layers", "layer": "one layer", "context": "one layer, 1000 tokens of context"}


def rehearsal_lines(done: Rehearsal) -> list[str]:
    """The whole answer."""
    version = f" {done.engine_version}" if done.engine_version else ""
    return [
        f"{done.model} {done.quantization} rehearsed with {done.engine}{version}, {done.created_at[:10]}",
        "",
        *_memory(done.allocation),
        "",
        *_columns(list(_times(done.decode, done.prefill))),
        "",
        *_columns(list(_speeds(done))),
        "",
        *(f"  - {note}" for note in done.notes),
        *_footprint(done),
    ]


def _memory(allocation: Allocation) -> Iterator[str]:
    for row in allocation.devices:
        parts = (row.weights_bytes, row.kv_cache_bytes, row.compute_bytes, row.overhead_bytes)
        taken = " + ".join(format_bytes(part) for part in parts)
        verdict = f"{format_bytes(row.margin_bytes)} stay free" if row.margin_bytes >= 0 else "does not fit"
        yield f"{row.id}: {taken} of {format_bytes(row.usable_bytes)}, {verdict}"
    yield "  weights + KV cache + compute + overhead"
    yield f"  {allocation.basis}: {allocation.source}"


def _times(decode: Regression, prefill: Regression) -> Iterator[tuple[str, ...]]:
    yield ("milliseconds per token", "decode", "prefill", "in the full model")
    for one, other in zip(_shown(decode), _shown(prefill), strict=True):
        kind = f" ({one.kind})" if one.kind else ""
        yield (f"{_PARTS[one.part]}{kind}", _with_error(one), _with_error(other), f"{one.in_full_model:.3g} times")
    noise = [f"{regression.relative_noise or 0:.1%}" for regression in (decode, prefill)]
    yield ("scatter of single timings", *noise, "")
    yield ("points beside the line", f"{decode.residual:.1%}", f"{prefill.residual:.1%}", "")


def _shown(regression: Regression) -> Sequence[Coefficient]:
    return [c for c in regression.coefficients if c.in_full_model]


def _with_error(coefficient: Coefficient) -> str:
    return f"{coefficient.ms:.3g} ± {coefficient.standard_error_ms:.2g}"


def _speeds(done: Rehearsal) -> Iterator[tuple[str, ...]]:
    yield ("extrapolated to", f"{done.n_layer} layers", "tokens/s, 80 % range")
    yield ("depth", "decode", "prefill")
    for row in done.speeds:
        beyond = " (deeper than rehearsed)" if row.beyond else ""
        yield (f"{row.depth_tokens}{beyond}", _spell(row.decode_tokens_per_s), _spell(row.prefill_tokens_per_s))


def _spell(estimate: Estimate) -> str:
    low, high = three_digits(estimate.low), three_digits(estimate.high)
    return f"{three_digits(estimate.value)} ({low} to {high}, {estimate.basis})"


def _footprint(done: Rehearsal) -> Iterator[str]:
    taken = done.footprint
    yield (
        f"took {taken.seconds:.0f} s, at most {format_bytes(taken.peak_resident_bytes)} of memory and "
        f"{format_bytes(taken.peak_disk_bytes)} of disk; "
        + (f"left behind: {', '.join(taken.files_left)}" if taken.files_left else "all files are removed")
    )


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return ["  " + "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
