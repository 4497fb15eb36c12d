"""The report as a reader sees it: in Chromium, at phone and desktop width, in light and dark."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
from looking import SIZES, looking
from playwright.sync_api import Browser

from glmplan.commands.plan import make_plan
from glmplan.commands.planned_machine import Recovered
from glmplan.commands.report_parts import report_of
from glmplan.commands.situation import situation_of
from glmplan.launchers import history
from glmplan.measurement import Measurement, SpeedSample
from glmplan.plan import Plan
from glmplan.render.report import figures_on, page

pytestmark = pytest.mark.browser
NOW = "2026-01-01T00:00:00+00:00"
MACHINES = ("rtx-4090", "2x rtx-3090", "cpu:32GiB")


def written(folder: Path, on: str, *, measured: bool = False) -> tuple[Path, tuple[str, ...]]:
    """The page of a plan for `on`, and the names of its figures."""
    here = situation_of(on, None)
    plan = make_plan(here)
    if measured:
        history.append(_measurement(plan))
    report = report_of(plan, Recovered(situation=here, source=f"named by --on {on}"), written_at=NOW)
    file = folder / "report.html"
    file.write_text(page(report), encoding="utf-8")
    return file, figures_on(report)


def _measurement(plan: Plan) -> Measurement:
    samples = tuple(
        SpeedSample(
            prompt_tokens=512, output_tokens=64, ttft_ms=500.0, prefill_tokens_per_s=speed * 10, tpot_ms=1000 / speed,
            decode_tokens_per_s=speed, depth_tokens=depth, server_timed=True,
        )
        for depth, speed in ((0, 100.0), (16384, 80.0))
    )  # fmt: skip
    return Measurement(
        created_at=NOW, glmplan_version="0.1.0", engine="llama-server", engine_version="b9999", model=plan.model.name,
        quantization=plan.model.quantization, synthetic=True, machine_fingerprint=plan.machine.fingerprint,
        samples=samples,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("on", MACHINES)
def test_the_page_is_whole_and_readable(
    on: str, size: str, scheme: Literal["light", "dark"], browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    file, figures = written(tmp_path, on, measured=on == MACHINES[0])
    with looking(browser, size, scheme) as seen:
        seen.open(file)
        seen.picture(pictures / f"report-{on.replace(' ', '-').replace(':', '-')}-{size}-{scheme}.png")
        assert seen.complaints == []
        assert seen.requests == [file.resolve().as_uri()]
        assert seen.overflow_px == 0
        assert seen.sticking_out() == []
        assert seen.too_faint() == []
        for figure in figures:
            plot = seen.page.locator(f"#plot-{figure} svg.main-svg").first
            box = plot.bounding_box()
            assert box is not None
            assert box["width"] > 280
            assert box["height"] > 150
            drawn = seen.page.locator(f"#plot-{figure} .trace, #plot-{figure} .point").count()
            assert drawn >= 2, figure


@pytest.mark.parametrize("size", SIZES)
def test_everything_said_is_seen(size: str, browser: Browser, tmp_path: Path) -> None:
    file, _ = written(tmp_path, "rtx-4090")
    with looking(browser, size) as seen:
        seen.open(file)
        headings = seen.page.locator("h1, h2")
        assert all(headings.nth(index).is_visible() for index in range(headings.count()))
        words = seen.page.locator("body").inner_text()
        for needed in ("Memory by device", "Context against decode speed", "Ledger", "Command"):
            assert needed in words
        assert "--ctx-size" in words
        assert "where nothing was measured from here" in words


def test_labels_of_figures_are_inside_their_figures(browser: Browser, tmp_path: Path) -> None:
    file, figures = written(tmp_path, "2x rtx-3090")
    with looking(browser, "phone") as seen:
        seen.open(file)
        for figure in figures:
            frame = seen.page.locator(f"#plot-{figure}").bounding_box()
            assert frame is not None
            texts = seen.page.locator(f"#plot-{figure} svg text")
            for index in range(texts.count()):
                box = texts.nth(index).bounding_box()
                if box is not None and box["width"]:
                    assert box["x"] >= frame["x"] - 1, texts.nth(index).inner_html()
                    assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 2, texts.nth(index).inner_html()


def test_colours_follow_the_readers_system_while_the_page_is_open(browser: Browser, tmp_path: Path) -> None:
    file, _ = written(tmp_path, "gpu:16GiB")
    with looking(browser, "desktop") as seen:
        seen.open(file)
        label = "getComputedStyle(document.querySelector('#plot-front .xtick text')).fill"
        before = seen.page.evaluate(label)
        seen.page.emulate_media(color_scheme="dark")
        seen.page.wait_for_timeout(200)
        assert seen.page.evaluate(label) != before
        assert seen.complaints == []


def test_a_narrower_window_draws_narrower_figures(browser: Browser, tmp_path: Path) -> None:
    file, _ = written(tmp_path, "gpu:16GiB")
    with looking(browser, "desktop") as seen:
        seen.open(file)
        seen.page.set_viewport_size({"width": 390, "height": 844})
        seen.page.wait_for_timeout(300)
        assert seen.overflow_px == 0
        assert seen.sticking_out() == []


def test_a_hostile_plan_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    here = situation_of("rtx-4090", None)
    plan = make_plan(here)
    bad = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    model = dataclasses.replace(plan.model, file=f"/models/{bad}.gguf", quantization=bad, name=bad)
    devices = tuple(dataclasses.replace(row, id=f"{row.id}{bad}") for row in plan.memory.devices)
    spoilt = dataclasses.replace(
        plan, model=model, reasons=(bad,), warnings=(bad,), memory=dataclasses.replace(plan.memory, devices=devices)
    )
    file = tmp_path / "report.html"
    file.write_text(page(report_of(spoilt, None, written_at=NOW)), encoding="utf-8")
    with looking(browser, "desktop") as seen:
        seen.open(file)
        assert "taken" not in seen.page.title().replace(bad, "")
        assert seen.page.locator("img, main script").count() == 0
        assert seen.page.locator("#plot-memory").inner_text().count("onerror") >= 1
        assert seen.complaints == []
        assert seen.asked_elsewhere == []
