"""The human view of an inspection."""

import io

import build_gguf as b
from rich.console import Console

from glmplan.inspection import Inspection
from glmplan.profiles.gguf_bytes import BufferSource
from glmplan.profiles.gguf_inspect import inspection_of
from glmplan.profiles.gguf_shards import read_shards
from glmplan.render.model import clean, show_inspection


def inspection(*, with_tensors: bool = False, **keys: b.Typed | b.Array | b.Value) -> Inspection:
    named = {name.replace("__", "."): value for name, value in keys.items()}
    content = b.build(b.glm_keys() | named, b.glm_tensors(), data=False)
    model = read_shards("m.gguf", lambda path: BufferSource(content, name=path, size_bytes=2**40))
    return inspection_of(model, source="m.gguf", with_tensors=with_tensors)


def shown(found: Inspection) -> str:
    stream = io.StringIO()
    show_inspection(found, Console(file=stream, width=100, soft_wrap=True, highlight=False))
    return stream.getvalue()


def test_the_facts_a_user_asks_for_are_there() -> None:
    text = shown(inspection(general__name="GLM-4.7-Flash", general__file_type=15))
    for part in ("Q4_K_M", "deepseek2", "47", "202,752 tokens", "gating sigmoid", "MLA, 20 heads", "f16 54,144",
                 "routed_experts", "same type", "no chat template"):  # fmt: skip
        assert part in text
    assert "blk.0.attn_k_b.weight" not in text
    assert "concluded" not in text


def test_tensors_are_listed_when_asked_for() -> None:
    text = shown(inspection(with_tensors=True))
    assert "blk.0.attn_k_b.weight" in text
    assert "192x512x20" in text


def test_warnings_come_with_the_way_out() -> None:
    text = shown(inspection(deepseek2__expert_gating_func=1))
    assert "warning: expert gating is softmax" in text
    assert "--override-kv deepseek2.expert_gating_func=int:2" in text


def test_a_name_cannot_drive_the_terminal_or_the_markup() -> None:
    text = shown(inspection(general__name="\x1b]0;owned\x07[bold red]GLM[/bold red]"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]GLM[/bold red]" in text
    assert len(clean("x" * 10_000)) < 1000
