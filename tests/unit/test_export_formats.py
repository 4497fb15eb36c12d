"""What holds for every format: accepted by its own check, the same every time, whole, and without secrets."""

import contextlib
import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from export_plans import PLANS, cpu_only, full_gpu, request_of, with_file
from hypothesis import given, settings
from hypothesis import strategies as st

from glmplan.errors import InputError, NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest, Use
from glmplan.launchers.export.formats import FORMATS, check, export, format_of
from glmplan.launchers.launch import Endpoint
from glmplan.plan import Plan

# What is no comment either: the whole plan as values (test_export_clusters.py reads them back), and the kind of GPU.
SAYS_MORE = {"ray-serve", "skypilot"}
CLIENTS = {name for name, known in FORMATS.items() if known.target == "clients"}
NO_COMMENTS = {"llama-cpp-python", "lm-studio-defaults", "opencode", "aider-metadata"}


def request_for(name: str, plan: Plan, **wanted: Any) -> ExportRequest:
    return request_of(plan, port=FORMATS[name].port, use=FORMATS[name].use, **wanted)


def exported_or_refused(name: str, request: ExportRequest) -> Exported | None:
    with contextlib.suppress(NotExpressible):
        return export(name, request)
    return None


@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_check_accepts_what_is_written_and_says_who_judged(name: str, plan_name: str) -> None:
    several: list[dict[str, Any]] = [{}, {"api_key_file": "/etc/the key"}, {"thinking": False}, {"use": Use.CODING}]
    for wanted in several:
        request = request_of(PLANS[plan_name](load_mtp=True), port=1234, **wanted)
        exported = exported_or_refused(name, request)
        if exported is not None:
            report = check(name, exported, Tools())
            assert report.problems == (), exported.text
            assert report.by


@pytest.mark.parametrize("name", FORMATS)
def test_writer_and_judge_exist_and_the_port_is_known(name: str) -> None:
    known = FORMATS[name]
    for path in (known.writer, f"checks.{known.judge}"):
        module, _, function = path.rpartition(".")
        assert callable(getattr(import_module(f"glmplan.launchers.export.{module}"), function))
    assert 1024 <= known.port <= 65535


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_plan_gives_the_same_bytes(name: str) -> None:
    assert exported_or_refused(name, request_for(name, full_gpu())) == exported_or_refused(
        name, request_for(name, full_gpu())
    )


@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("name", sorted(set(FORMATS) - NO_COMMENTS))
def test_what_is_lost_stands_in_the_file(name: str, plan_name: str) -> None:
    exported = exported_or_refused(name, request_for(name, PLANS[plan_name]()))
    if exported is not None:
        text = exported.text.replace("- -", "--")
        assert [loss for loss in exported.losses if f"not expressed: {loss}" not in text] == []


@pytest.mark.parametrize("name", sorted(set(FORMATS) - CLIENTS))
def test_huge_pages_are_asked_for_or_said_to_be_lost(name: str) -> None:
    exported = exported_or_refused(name, request_for(name, cpu_only(huge_pages=True)))
    plain = exported_or_refused(name, request_for(name, cpu_only()))
    if exported is None or plain is None:
        assert exported is plain  # refused for what it is, not for its pages
        return
    lost = [loss for loss in exported.losses if "huge pages" in loss]
    said = re.search(r'glibc\.malloc\.hugetlb=1|huge_pages"?: true', exported.text)
    assert said or lost
    assert "hugetlb" not in plain.text
    assert not any("huge pages" in loss for loss in plain.losses)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_leads_to_a_key_is_its_owners_and_holds_no_key(name: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-very-secret\n")
    exported = exported_or_refused(name, request_for(name, full_gpu(), api_key_file=str(key_file)))
    assert exported is not None
    assert "sk-very-secret" not in exported.text
    assert exported.mode == (0o700 if name == "script" else 0o600)


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_opens_a_server_to_others_without_a_key(name: str) -> None:
    request = dataclasses.replace(
        request_for(name, full_gpu()), endpoint=Endpoint(host="0.0.0.0", port=8080, api_key_file="/etc/key")
    )
    exported = exported_or_refused(name, request)
    if exported is not None and "0.0.0.0" in exported.text:
        assert "key" in exported.text.lower()


def test_an_unknown_format_is_told_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no export format 'llamaswap'") as caught:
        format_of("llamaswap")
    assert "llama-swap" in caught.value.hint
    assert format_of("COMPOSE") is format_of("docker-compose") is FORMATS["compose"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", ["/models/\ud800.gguf", "/models/\0.gguf"])
def test_names_that_no_file_can_hold_are_refused(name: str, file: str) -> None:
    with pytest.raises(NotExpressible, match="no file can hold"):
        export(name, request_for(name, with_file(full_gpu(), file)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("file", ["glm-4.7-flash:q4_K_M", "https://example.org/GLM-4.7-Flash-Q4_K_M.gguf"])
def test_a_plan_without_a_file_says_what_is_assumed_or_needs_none(name: str, file: str) -> None:
    exported = export(name, request_for(name, with_file(full_gpu(), file), exact_size=False))
    assert check(name, exported, Tools()).problems == ()
    assert "example.org" not in exported.text
    if "/models/" in exported.text and name not in {"script", "powershell"}:
        assert any("names no file on disk" in loss for loss in exported.losses)


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=["Cs"]), max_size=40))
def test_nothing_in_a_plan_can_leave_its_comment(text: str) -> None:
    """Whoever wrote the plan file: names and dates of it stand in comments only, on one line."""
    plan = full_gpu()
    gpu = dataclasses.replace(plan.machine.gpus[0], name=f"NVIDIA {text}")
    hostile = dataclasses.replace(
        plan,
        created_at=text,
        machine=dataclasses.replace(plan.machine, gpus=(gpu,), fingerprint=text),
        model=dataclasses.replace(plan.model, name=text.replace("\0", "")),
    )
    for name in sorted(set(FORMATS) - NO_COMMENTS - SAYS_MORE):
        before = export(name, request_for(name, plan)).text.removeprefix("\ufeff").split("\n")
        after = export(name, request_for(name, hostile)).text.removeprefix("\ufeff").split("\n")
        assert len(before) == len(after), name
        if name == "launchd":
            before, after = (
                re.sub(r"<!--.*?-->", "", "\n".join(lines), flags=re.DOTALL).split("\n") for lines in (before, after)
            )
        assert [line for line in after if line[:1] != "#"] == [line for line in before if line[:1] != "#"], name
        assert not any("\r" in line or line.endswith("\\") for line in after if line[:1] == "#")


def test_every_block_of_the_facts_names_its_source() -> None:
    assert all(block.get("source") for block in targets.facts().values())


def test_sampling_is_the_model_cards() -> None:
    general, coding = targets.use_defaults("general"), targets.use_defaults("coding")
    assert (general.sampling.temperature, general.sampling.top_p, general.max_new_tokens) == (1.0, 0.95, 131072)
    assert (coding.sampling.temperature, coding.sampling.top_p, coding.max_new_tokens) == (0.7, 1.0, 16384)
    assert {use.sampling.min_p for use in (general, coding)} == {0.01}
    assert {use.sampling.repeat_penalty for use in (general, coding)} == {1.0}
    assert coding.preserve_thinking


def test_shipped_schemas_name_their_source() -> None:
    folder = Path(str(import_module("glmplan.launchers.export.checks").__path__[0]))
    schemas = sorted(folder.glob("*.json"))
    assert len(schemas) >= 9
    for path in schemas:
        assert len(json.loads(path.read_text("utf-8"))["$comment"]) > 40
