"""The report: true to its plan, whole on one page, and nothing in a plan file can become markup."""

import dataclasses
import functools
import json
import re
import shlex
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]
import pytest
import typer
from export_plans import PLANS, is_array, is_object, with_file
from hypothesis import given
from hypothesis import strategies as st

from glmplan.cli import application
from glmplan.commands.plan import make_plan
from glmplan.commands.planned_machine import Recovered, judge_of, model_of, recovered
from glmplan.commands.report import make_report
from glmplan.commands.report_parts import report_of
from glmplan.commands.situation import situation_of
from glmplan.errors import InputError
from glmplan.jsonio import dumps
from glmplan.launchers import history
from glmplan.measurement import Measurement, SpeedSample
from glmplan.plan import Plan
from glmplan.planner.curves import context_room, depth_points
from glmplan.planner.judging import Judge
from glmplan.render.report import figures_on, page
from glmplan.render.report_figures import figures_of
from glmplan.render.report_html import element, raw, table
from glmplan.report import Report

app = application()

NOW = "2026-01-01T00:00:00+00:00"
MACHINES = ("rtx-4090", "2x rtx-3090", "apple-m4-max:64", "cpu:32GiB", "gpu:16GiB")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&%{x}"


@functools.cache
def planned(on: str) -> tuple[Plan, Recovered]:
    here = situation_of(on, None)
    return make_plan(here), Recovered(situation=here, source=f"named by --on {on}")


def reported(on: str) -> Report:
    return report_of(*planned(on), written_at=NOW)


class Reader(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.mark.parametrize("on", MACHINES)
def test_every_figure_is_drawn_and_plotly_knows_every_property(on: str) -> None:
    figures = figures_of(reported(on))
    assert [figure.key for figure in figures] == ["memory", "context", "decode", "prefill", "front"]
    for figure in figures:
        drawn = go.Figure({"data": list(figure.traces), "layout": {**figure.layout, **figure.narrow}})
        assert isinstance(drawn, go.Figure)


@pytest.mark.parametrize("on", MACHINES)
def test_the_page_says_the_plans_own_numbers(on: str) -> None:
    report = reported(on)
    text = Reader(page(report)).text
    plan = report.plan
    for number in (plan.placement.n_ctx, *(row.weights_bytes for row in plan.memory.devices)):
        assert f"{number:,}" in text
    for sentence in (*plan.reasons, *plan.warnings):
        assert " ".join(sentence.split()) in text
    assert "where nothing was measured from here" in text
    assert report.command is not None
    assert " ".join(report.command.text.split()) in text


def test_the_command_is_the_exports_with_more_options_a_line() -> None:
    report = reported("rtx-4090")
    assert report.command is not None
    words = shlex.split(report.command.text.replace("\\\n", " "))
    assert words[0] == "llama-server"
    assert words[words.index("--ctx-size") + 1] == str(report.plan.placement.n_ctx)
    assert max(map(len, report.command.text.splitlines())) < 120


@pytest.mark.parametrize("on", MACHINES)
def test_curves_go_through_the_plan_and_end_where_memory_ends(on: str) -> None:
    plan, there = planned(on)
    model = model_of(plan)
    assert model is not None
    judge = judge_of(plan, model, there.situation)
    assert judge is not None
    room = context_room(judge.memory, plan.placement)
    own = next(curve for curve in room.curves if curve.cache_type == plan.placement.cache_type_k)
    device = next(row for row in plan.memory.devices if row.id == room.device)
    assert {point.needed_bytes for point in own.points if point.n_ctx == plan.placement.n_ctx} <= {device.needed_bytes}
    for curve in room.curves:
        assert curve.largest_n_ctx is not None
        assert fits(judge, plan, curve.cache_type, curve.largest_n_ctx)
        if curve.largest_n_ctx < model.n_ctx_train:
            assert not fits(judge, plan, curve.cache_type, curve.largest_n_ctx + 256)
    speeds = {
        point.depth_tokens: point.decode_tokens_per_s
        for point in depth_points(judge, plan.placement, at=plan.speed.depth_tokens)
    }
    assert speeds[plan.speed.depth_tokens] == plan.speed.decode_tokens_per_s
    assert max(speeds) == plan.placement.n_ctx
    assert list(speeds) == sorted(speeds)


def fits(judge: Judge, plan: Plan, cache: str, n_ctx: int) -> bool:
    placed = dataclasses.replace(plan.placement, cache_type_k=cache, cache_type_v=cache, n_ctx=n_ctx)
    return judge.memory.estimate(placed).fits


@pytest.mark.parametrize("on", MACHINES)
def test_a_plan_file_leads_back_to_its_machine(on: str, tmp_path: Path) -> None:
    plan, _ = planned(on)
    file = tmp_path / "plan.json"
    file.write_text(dumps(plan), encoding="utf-8")
    report = make_report(str(file), None, None)
    assert report.room is not None
    assert report.front is not None
    assert report.notes == ()
    assert "by the plan's devices" in report.machine_source


def test_a_machine_that_is_not_the_plans_is_refused_and_an_unknown_one_is_said() -> None:
    plan, _ = planned("rtx-4090")
    with pytest.raises(InputError, match="another machine"):
        recovered(plan, "rtx-3090", None)
    report = report_of(PLANS["hybrid-experts"](), None, written_at=NOW)
    assert figures_on(report) == ("memory", "decode", "prefill")
    assert {missing.part for missing in report.missing} == {"context and depth", "front", "measured points"}
    text = Reader(page(report)).text
    assert text.count("Not drawn:") == 4
    assert "--on MACHINE names the plan's machine" in text


def test_a_plan_whose_memory_is_not_its_machines_is_not_drawn() -> None:
    plan, there = planned("gpu:24GiB")
    rows = tuple(dataclasses.replace(row, weights_bytes=row.weights_bytes * 2) for row in plan.memory.devices)
    spoilt = dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, devices=rows))
    assert report_of(spoilt, there, written_at=NOW).room is None


def test_a_forecast_that_has_moved_since_the_plan_is_said() -> None:
    plan, there = planned("gpu:24GiB")
    slower = dataclasses.replace(plan.speed.decode_tokens_per_s, value=plan.speed.decode_tokens_per_s.value / 2)
    old = dataclasses.replace(plan, speed=dataclasses.replace(plan.speed, decode_tokens_per_s=slower))
    (note,) = report_of(old, there, written_at=NOW).notes
    assert "today's forecast" in note


def measured_at(fingerprint: str, *, synthetic: bool, quantization: str = "q4_K_M") -> Measurement:
    sample = SpeedSample(
        prompt_tokens=512, output_tokens=64, ttft_ms=100.0, prefill_tokens_per_s=900.0, decode_tokens_per_s=81.5,
        tpot_ms=12.3, depth_tokens=4096, server_timed=True,
    )  # fmt: skip
    return Measurement(
        created_at=NOW, glmplan_version="0.1.0", engine="llama-server", engine_version="b9999", model="glm-4.7-flash",
        quantization=quantization, synthetic=synthetic, machine_fingerprint=fingerprint, samples=(sample,),
    )  # fmt: skip


def test_measured_points_are_those_of_the_plans_machine_and_file() -> None:
    plan, there = planned("rtx-4090")
    whole = measured_at(plan.machine.fingerprint, synthetic=False)
    history.append(dataclasses.replace(whole, n_layer=47, placement=dataclasses.replace(plan.placement, n_ctx=8192)))
    history.append(measured_at(plan.machine.fingerprint, synthetic=True))
    history.append(measured_at(plan.machine.fingerprint, synthetic=False, quantization="bf16"))
    history.append(measured_at("0" * 16, synthetic=False))
    cut = measured_at(plan.machine.fingerprint, synthetic=True)
    history.append(dataclasses.replace(cut, n_layer=4))
    other = dataclasses.replace(plan.placement, n_ubatch=plan.placement.n_ubatch * 2)
    history.append(dataclasses.replace(cut, placement=other))
    history.append(dataclasses.replace(cut, samples=(dataclasses.replace(cut.samples[0], n_streams=4),)))
    report = report_of(plan, there, written_at=NOW)
    assert [point.synthetic for point in report.measured] == [False, True]
    decode = next(figure for figure in figures_of(report) if figure.key == "decode")
    assert [trace["y"] for trace in decode.traces if trace["name"] in {"measured", "synthetic"}] == [[81.5], [81.5]]
    assert report.why_missing("measured points") is None
    assert "2 samples measured here" in Reader(page(report)).text


def spoilt_everywhere(value: Any) -> Any:
    """A plan's JSON with every free text hostile."""
    if is_object(value):
        return {key: spoilt_text(key, item) for key, item in value.items()}
    if is_array(value):
        return [spoilt_everywhere(item) for item in value]
    return value


def spoilt_text(key: str, value: Any) -> Any:
    free = {"name", "file", "quantization", "architecture", "os", "cpu", "glmplan_version", "driver", "engine_build",
            "why_not", "step", "effect", "id"}  # fmt: skip
    if isinstance(value, str) and key in free:
        return f"{value}{HOSTILE}"
    if key in {"reasons", "warnings"}:
        return [HOSTILE]
    return spoilt_everywhere(value)


def test_nothing_in_a_plan_file_becomes_markup(tmp_path: Path) -> None:
    plan, _ = planned("2x rtx-3090")
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(spoilt_everywhere(json.loads(dumps(plan)))), encoding="utf-8")
    report = make_report(str(file), None, None)
    read = Reader(page(report))
    assert [tag for tag, _ in read.tags].count("script") == 3
    assert not {tag for tag, _ in read.tags} & {"img", "iframe", "object", "embed", "svg", "a", "form"}
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in "".join(read.words)
    for figure in figures_of(report):
        # What plotly would take for markup or for a template: only ours is left.
        texts = re.findall(r"<(?!br>|extra></extra>)[^>]*>", json.dumps(figure.traces))
        assert [text for text in texts if "/extra" not in text] == []


@given(st.text())
def test_text_survives_an_element_letter_by_letter(text: str) -> None:
    # A parser takes NUL and carriage returns for something else; they cannot break out either.
    written = element("p", text, title=text).text
    read = Reader(written)
    assert [tag for tag, _ in read.tags] == ["p"]
    kept = "".join(read.words)
    assert kept == text or {"\r", "\0"} & set(text)


def test_raw_content_cannot_end_its_element() -> None:
    for text in ("a</script>b", "</SCRIPT ", "<!-- "):
        with pytest.raises(ValueError, match="would end"):
            raw("script", text)
    assert table(("a",), [("<b>",)]).text.count("&lt;b&gt;") == 1


def test_no_secret_of_an_address_or_the_environment_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLMPLAN_API_KEY", "hunter2-key")
    monkeypatch.setenv("HF_TOKEN", "hunter2-token")
    plan = with_file(PLANS["full-gpu"](), "https://me:hunter2@example.org/m.gguf?sig=hunter2#hunter2")
    text = page(report_of(plan, None, written_at=NOW))
    assert "hunter2" not in text
    assert "https://example.org/m.gguf" in text


def test_the_same_report_is_the_same_page_and_only_the_time_differs() -> None:
    first, second = reported("gpu:16GiB"), reported("gpu:16GiB")
    created = second.plan.created_at
    later = dataclasses.replace(second, plan=dataclasses.replace(second.plan, created_at=first.plan.created_at))
    assert page(first) == page(later)
    assert created >= first.plan.created_at


def test_the_file_is_whole_readable_by_others_and_writable_by_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "report.html"
    assert run(["report", "--on", "gpu:16GiB", "-o", str(output), "--json"]) in {None, 0}
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "glmplan/report/1"
    assert document["file"] == str(output)
    assert document["bytes"] == output.stat().st_size
    assert document["missing"][0]["part"] == "measured points"
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot write "):
        run(["report", "--on", "gpu:16GiB", "-o", str(blocked / "report.html")])


run: Callable[[list[str]], object] = lambda words: typer.main.get_command(app)(words, standalone_mode=False)  # noqa: E731
