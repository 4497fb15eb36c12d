"""A plan for people: the choice, a memory bar per device, the reasons, and where each number comes from."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from glmplan.estimate import Estimate
from glmplan.ledger import LedgerRow, Speeds
from glmplan.plan import Alternative, Plan
from glmplan.units import format_bytes

_BAR_WIDTH = 48
_LEDGER_SOURCES = {
    "roofline": "computed from the file's tensors and the engine's rules",
    "measured": "measured: the engine's own dry run of this configuration",
}
_PARTS = (("weights", "blue"), ("KV cache", "magenta"), ("compute", "yellow"), ("overhead", "red"))


def show_plan(plan: Plan, *, why: bool = False) -> None:
    """Print `plan` on stdout."""
    console = Console(highlight=False, soft_wrap=False)
    placement, model = plan.placement, plan.model
    title = f"{model.name} {model.quantization}, {placement.n_ctx} tokens of context, KV cache {placement.cache_type_k}"
    console.print(Text(title, style="bold"))
    build = f" {placement.engine_build}" if placement.engine_build else ""
    console.print(f"for {plan.machine.cpu}{_gpu_names(plan)}; engine {placement.engine}{build}")
    console.print()
    _show_ledger(console, plan.memory.devices, basis=plan.memory.basis)
    console.print()
    _show_speed(console, plan.speed)
    console.print()
    for reason in plan.reasons:
        console.print(f"  - {reason}")
    for warning in plan.warnings:
        console.print(Text(f"  ! {warning}", style="yellow"))
    if why:
        _show_why(console, plan)


def show_estimate(rows: Sequence[LedgerRow], speed: Speeds | None, *, basis: str, warnings: Sequence[str]) -> None:
    """Print one configuration's ledger, and its speeds where they are known."""
    console = Console(highlight=False, soft_wrap=False)
    _show_ledger(console, rows, basis=basis)
    console.print()
    if speed is not None:
        _show_speed(console, speed)
    for warning in warnings:
        console.print(Text(f"  ! {warning}", style="yellow"))


def _gpu_names(plan: Plan) -> str:
    return "".join(f", {gpu.name}" for gpu in plan.machine.gpus)


def _show_ledger(console: Console, rows: Sequence[LedgerRow], *, basis: str) -> None:
    for row in rows:
        console.print(memory_bar(row))
    legend = Text("       ")
    for name, style in _PARTS:
        legend.append("■ ", style=style).append(f"{name}  ")
    source = _LEDGER_SOURCES.get(basis, basis)
    console.print(legend.append("· free"))
    console.print(f"       memory: {source}; overhead: assumed")


def memory_bar(row: LedgerRow) -> Text:
    """One device: its parts as a bar, then the numbers."""
    parts = (row.weights_bytes, row.kv_cache_bytes, row.compute_bytes, row.overhead_bytes)
    needed = sum(parts)
    scale = max(needed, row.usable_bytes, 1)
    bar, drawn = Text(f"{row.id:>5}  "), 0
    for size, (_, style) in zip(parts, _PARTS, strict=True):
        width = round(_BAR_WIDTH * size / scale)
        bar.append("■" * width, style=style)
        drawn += width
    bar.append("·" * max(0, _BAR_WIDTH - drawn), style="dim")
    numbers = " + ".join(format_bytes(size) for size in parts)
    verdict = "" if needed <= row.usable_bytes else f"  {format_bytes(needed - row.usable_bytes)} SHORT"
    text = f"  {format_bytes(needed)} of {format_bytes(row.usable_bytes)}{verdict}\n       {numbers}"
    return bar.append(text)


def _show_speed(console: Console, speed: Speeds) -> None:
    for name, estimate in (("decode", speed.decode_tokens_per_s), ("prefill", speed.prefill_tokens_per_s)):
        text = f"{estimate.value:8.1f} tokens/s  ({estimate.low:.1f} to {estimate.high:.1f}, {_basis(estimate)})"
        console.print(f"{name:>9}{text} at {speed.depth_tokens} tokens of depth")


def _basis(estimate: Estimate) -> str:
    names = {
        "roofline": "computed from bandwidth and FLOPs",
        "assumed": "assumed: no run of this model on such a device is known",
    }
    return names.get(estimate.basis.value, estimate.basis.value)


def _on_host(other: Alternative) -> int:
    return next((device.weights_bytes for device in other.memory.devices if device.id == "host"), 0)


def _show_why(console: Console, plan: Plan) -> None:
    console.print()
    table = Table(
        "file", "context", "KV", "weights on host", "decode", "why not", title="Runners-up", title_justify="left"
    )
    for other in plan.alternatives:
        p = other.placement
        decode = f"{other.speed.decode_tokens_per_s.value:.1f}"
        table.add_row(
            other.quantization, str(p.n_ctx), p.cache_type_k, format_bytes(_on_host(other)), decode, other.why_not
        )
    console.print(table)
    prices = Table("one step more", "what it costs or buys", title="Prices", title_justify="left")
    for price in plan.prices:
        prices.add_row(price.step, price.effect)
    console.print(prices)
    console.print("context against decode speed, drawn: glmplan compare (with the same --on)")
