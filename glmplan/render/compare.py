"""Comparisons and needs for people: tables, and the front of context against speed as bars."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from glmplan.comparison import Answer, Comparison, FrontPoint, WhatIf
from glmplan.estimate import Estimate
from glmplan.units import format_bytes

_BAR_WIDTH = 40


def show_comparison(found: Comparison) -> None:
    """Print answers, claims and the front on stdout."""
    console = Console(highlight=False)
    table = Table(
        "who", "file", "context", "KV", "experts on host", "decode", "fits", title="Answers", title_justify="left"
    )
    for answer in (found.ours, *found.others):
        table.add_row(*_cells(answer))
    console.print(table)
    for answer in found.others:
        console.print(f"  - {answer.name}: {answer.where_wrong}")
    for claim in found.claims:
        said = f"{claim.n_ctx} tokens with {claim.quantization}"
        console.print(f"  - {claim.name} would say {said}: {claim.where_wrong}")
    console.print()
    console.print(Text("Context against decode speed: nothing has more of both", style="bold"))
    fastest = max(point.decode_tokens_per_s.value for point in found.front)
    for point in found.front:
        console.print(front_line(point, fastest))


def front_line(point: FrontPoint, fastest: float) -> Text:
    """One point of the front: context, a bar as long as its speed, and the configuration."""
    width = max(1, round(_BAR_WIDTH * point.decode_tokens_per_s.value / fastest))
    text = Text(f"{point.n_ctx:>8}  ").append("■" * width, style="blue").append("·" * (_BAR_WIDTH - width), style="dim")
    return text.append(f" {point.decode_tokens_per_s.value:6.1f} tokens/s  {point.quantization}, {point.cache_type}")


def _cells(answer: Answer) -> tuple[str, ...]:
    short = ", ".join(f"{device}: {format_bytes(size)} short" for device, size in answer.missing_bytes.items())
    return (
        answer.name,
        answer.quantization,
        str(answer.n_ctx),
        answer.cache_type,
        format_bytes(answer.host_expert_bytes) if answer.host_expert_bytes else "-",
        _spell(answer.decode_tokens_per_s),
        short or "yes",
    )


def _spell(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} ({estimate.low:.0f} to {estimate.high:.0f})"


def show_what_if(found: WhatIf) -> None:
    """Print the machines on stdout."""
    console = Console(highlight=False)
    title = f"{found.need}: cheapest memory first, of {found.n_looked_at} machines of the catalog"
    table = Table(
        Column("--on", overflow="fold"), "memory", "how", "decode, tokens/s", title=title, title_justify="left"
    )
    for row in found.machines:
        beside = f", {format_bytes(row.host_expert_bytes)} of experts on host" if row.host_expert_bytes else ""
        table.add_row(
            "\n".join(map(_short, (row.on, *row.also))),
            format_bytes(row.memory_bytes),
            f"{row.quantization}, {row.n_ctx} tokens, {row.cache_type} KV{beside}",
            _spell(row.decode_tokens_per_s),
        )
    console.print(table)
    on = _short(found.machines[0].on)
    console.print(f"why, and what a step more costs: glmplan plan --why --on {on} --n-ctx {found.machines[0].n_ctx}")
    console.print(f"context against speed there: glmplan compare --on {on}")


def _short(on: str) -> str:
    """A device as people write it: the maker is understood."""
    return on.removeprefix("nvidia-").removeprefix("geforce-")
