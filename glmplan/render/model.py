"""An inspection for a person: what the file is, where its bytes are, what to beware of."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from glmplan.inspection import Inspection, WarningLevel
from glmplan.model import GqaAttention, MlaAttention
from glmplan.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_LONGEST: Final = 160


def show_inspection(inspection: Inspection, console: "Console | None" = None) -> None:
    """Print `inspection` to stdout, or to `console`."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=True)
    width = max(len(label) for label, _ in _facts(inspection))
    for label, value in _facts(inspection):
        console.print(f"{label:{width}}  {clean(value)}", markup=False)
    for table in (_groups(inspection), _types(inspection), _tensors(inspection)):
        if table is not None:
            console.print()
            console.print(table)
    for warning in inspection.warnings:
        console.print()
        style = "yellow" if warning.level is WarningLevel.WARNING else None
        console.print(f"{warning.level}: {clean(warning.message)}", style=style, markup=False)
        if warning.hint:
            console.print(f"  try: {clean(warning.hint)}", markup=False)


def clean(text: str) -> str:
    """`text` without control characters: a model's name must not drive the terminal."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return shown if len(shown) <= _LONGEST * 4 else shown[: _LONGEST * 4] + "..."


def _facts(inspection: Inspection) -> Iterator[tuple[str, str]]:
    yield "file", inspection.source + (f" ({inspection.store})" if inspection.store else "")
    if len(inspection.shards) > 1:
        yield "parts", str(len(inspection.shards))
    size = "unknown" if inspection.file_bytes is None else format_bytes(inspection.file_bytes)
    yield "size", f"{size}, {format_bytes(inspection.bytes_read)} read"
    yield "name", (inspection.name or "not stated")[:_LONGEST]
    yield "architecture", inspection.architecture or "not stated"
    said = "" if inspection.quantization_stated else " (concluded from the tensors)"
    bits = f", {inspection.bits_per_weight:.2f} bits per weight" if inspection.bits_per_weight else ""
    yield "quantisation", f"{inspection.quantization}{said}{bits}"
    yield "parameters", f"{inspection.n_parameters:,} in {inspection.n_tensors} tensors"
    yield from _layers(inspection)
    yield "attention", _attention(inspection)
    yield "KV cache", _kv_cache(inspection)
    yield "chat template", _template(inspection)


def _layers(inspection: Inspection) -> Iterator[tuple[str, str]]:
    if inspection.block_count is not None:
        nextn = f", {inspection.nextn_layers} of them for multi-token prediction" if inspection.nextn_layers else ""
        yield "blocks", f"{inspection.block_count}{nextn}"
    if inspection.n_ctx_train is not None:
        yield "context", f"{inspection.n_ctx_train:,} tokens trained"
    if inspection.n_expert:
        gating = inspection.expert_gating
        how = "" if gating is None else f", gating {gating.function or 'not stated'}"
        said = "" if gating is None or gating.stated or gating.function is None else " (the loader's default)"
        yield "experts", f"{inspection.n_expert}, {inspection.n_expert_used} per token{how}{said}"


def _attention(inspection: Inspection) -> str:
    attention = inspection.attention
    if isinstance(attention, MlaAttention):
        return f"MLA, {attention.n_head} heads, latent {attention.kv_lora_rank} + rope {attention.rope_dimensions}"
    if isinstance(attention, GqaAttention):
        window = f", window {attention.sliding_window}" if attention.sliding_window else ""
        lengths = f"key {attention.key_length}, value {attention.value_length}"
        return f"GQA, {attention.n_head} heads, {attention.n_head_kv} for keys and values, {lengths}{window}"
    return "none described"


def _kv_cache(inspection: Inspection) -> str:
    cache = inspection.kv_cache
    shown = [name for name in ("f16", "q8_0", "q4_0") if name in cache.bytes_per_token]
    sizes = ", ".join(f"{name} {cache.bytes_per_token[name]:,}" for name in shown)
    return f"{sizes} bytes per token in {cache.n_layer} layers ({cache.note})" if sizes else cache.note


def _template(inspection: Inspection) -> str:
    template = inspection.chat_template
    if template is None:
        return "none"
    tools = "tools" if template.tools else "no tools"
    thinking = "thinking" if template.thinking else "no thinking"
    switches = f" ({', '.join(template.switches)})" if template.switches else ""
    return f"{template.bytes:,} bytes, {tools}, {thinking}{switches}"


def _groups(inspection: Inspection) -> "Table | None":
    if not inspection.groups:
        return None
    table = _new_table("group", "tensors", "parameters", "bytes", "size")
    for group in inspection.groups:
        size = format_bytes(group.bytes)
        table.add_row(group.group, str(group.n_tensors), f"{group.n_parameters:,}", f"{group.bytes:,}", size)
    total = inspection.tensor_bytes
    table.add_row("all", str(inspection.n_tensors), f"{inspection.n_parameters:,}", f"{total:,}", format_bytes(total))
    return table


def _types(inspection: Inspection) -> "Table | None":
    if not inspection.types:
        return None
    table = _new_table("type", "tensors", "bytes", "size")
    for kind in inspection.types:
        table.add_row(kind.type, str(kind.n_tensors), f"{kind.bytes:,}", format_bytes(kind.bytes))
    return table


def _tensors(inspection: Inspection) -> "Table | None":
    if inspection.tensors is None:
        return None
    from rich.text import Text

    table = _new_table("tensor", "type", "shape", "bytes", "group")
    for tensor in inspection.tensors:
        shape = "x".join(str(length) for length in tensor.shape)
        table.add_row(Text(clean(tensor.name)), tensor.type, shape, f"{tensor.bytes:,}", tensor.group)
    return table


def _new_table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name in {"type", "group"} else "right", no_wrap=True)
    return table
