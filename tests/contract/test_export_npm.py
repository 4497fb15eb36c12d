"""Configurations of editors judged by the editors' own programs, as npm has them."""

import json
from pathlib import Path
from typing import Any

import pytest
from export_plans import PLANS, full_gpu, hybrid, request_of

from glmplan.launchers.export.checks import json_schema
from glmplan.launchers.export.checks.report import CheckReport, Tools
from glmplan.launchers.export.exported import Exported, Use
from glmplan.launchers.export.formats import check, export

HERE = Path(__file__).parents[1] / "npm"
PROGRAMS = {
    "continue": ("config-yaml", "Continue's config-yaml", HERE / "node_modules/.bin/config-yaml"),
    "opencode": ("opencode", "opencode debug config", HERE / "node_modules/opencode-linux-x64-baseline/bin/opencode"),
}
WANTED: list[dict[str, Any]] = [
    {"use": Use.CODING, "api_key_file": "/etc/a 'key' of ünï"},
    {"use": Use.GENERAL, "thinking": False},
]


def judged(name: str, exported: Exported) -> CheckReport:
    """What the program says; that it was asked is part of it."""
    program, judge, path = PROGRAMS[name]
    assert path.is_file(), f"{path} is missing: cd {HERE} && npm ci"
    report = check(name, exported, Tools(programs={program: str(path)}))
    assert report.by[-1] == judge
    return report


@pytest.mark.npm
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("plan", PLANS)
def test_continue_reads_what_is_written(plan: str, wanted: dict[str, Any]) -> None:
    assert judged("continue", export("continue", request_of(PLANS[plan](), **wanted))).problems == ()


@pytest.mark.npm
@pytest.mark.parametrize("wanted", WANTED)
def test_opencode_reads_what_is_written_and_keeps_all_of_it(wanted: dict[str, Any]) -> None:
    assert judged("opencode", export("opencode", request_of(hybrid(), **wanted))).problems == ()


# Our schemas let these pass; the programs must not.
SPOILT: list[tuple[str, str, str, str]] = [
    ("continue", "name: glmplan", "name: glmplan\nname: twice", "Map keys must be unique"),
    ("continue", "maxTokens: 32768", "maxTokens: 65000", "leaves only 536 tokens for input context"),
]


@pytest.mark.npm
@pytest.mark.parametrize(("name", "there", "instead", "said"), SPOILT)
def test_the_programs_refuse_what_our_schemas_let_pass(name: str, there: str, instead: str, said: str) -> None:
    exported = export(name, request_of(full_gpu()))
    assert there in exported.text
    report = judged(name, Exported(text=exported.text.replace(there, instead), suffix=exported.suffix))
    assert any(said in problem for problem in report.problems), report


REFUSED: list[tuple[str, str, str, str]] = [
    ("continue", "temperature: 1.0", "temperature: warm", "models.0"),
    ("continue", "- chat", "- talk", "models.0"),
    ("continue", "provider: openai", "supplier: openai", "models.0"),
    ("opencode", '"context": 65536', '"context": "many"', 'Expected number, got "many"'),
    ("opencode", '"context": 65536,', "", "Missing key provider.glmplan.models.glm-4.7-flash.limit.context"),
    ("opencode", '"limit"', '"limits"', "opencode drops provider.glmplan.models.glm-4.7-flash.limits"),
]


def nothing_wrong(_document: object, _schema: object) -> tuple[str, ...]:
    """A schema that accepts everything."""
    return ()


@pytest.mark.npm
@pytest.mark.parametrize(("name", "there", "instead", "said"), REFUSED)
def test_the_programs_refuse_what_our_schemas_refuse(
    name: str, there: str, instead: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export(name, request_of(full_gpu()))
    assert there in exported.text
    spoilt = Exported(text=exported.text.replace(there, instead), suffix=exported.suffix)
    assert check(name, spoilt, Tools()).problems
    monkeypatch.setattr(json_schema, "problems", nothing_wrong)
    assert any(said in problem for problem in judged(name, spoilt).problems), judged(name, spoilt)


def test_the_lock_file_pins_by_hash_and_names_no_host() -> None:
    text = (HERE / "package-lock.json").read_text(encoding="utf-8")
    packages = {path: entry for path, entry in json.loads(text)["packages"].items() if path}
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert "://" not in text
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_the_schema_of_continue_is_made_from_the_same_package() -> None:
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    (judge,) = check("continue", export("continue", request_of(full_gpu())), Tools()).by
    assert judge.endswith(f" {wanted['@continuedev/config-yaml']}")
