"""Our few keywords of JSON Schema against a whole implementation, on plans spoilt at random."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import situation_of
from glmplan.errors import JsonValue
from glmplan.jsonio import dumps
from glmplan.plan_schema import CHECKS, schema, violations

# Keywords that say nothing of a value, and those walked rather than checked.
DESCRIBING: Final = {"$schema", "$id", "title", "description", "format", "$defs"}
WALKED: Final = {"$ref", "properties", "additionalProperties", "items"}
VALIDATOR: Final[Any] = Draft202012Validator(schema())
SPOILT: Final = st.sampled_from(
    [None, True, False, 0, 1, -1, -3.5, 2.0, 10**18, "", "f16", "q9_9", "on", "glmplan/plan/2", [], [1], {}, {"id": 1}]
)


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(dumps(make_plan(situation_of("gpu:8GiB,16GiB", "64GiB"))))
    document["alternatives"] = document["alternatives"][:1]
    return document


def test_every_keyword_of_the_schema_is_known() -> None:
    assert {name for rules in rule_sets(schema()) for name in rules} <= set(CHECKS) | DESCRIBING | WALKED


def rule_sets(rules: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and all schemas within it."""
    yield rules
    inner = [*rules.get("properties", {}).values(), *rules.get("$defs", {}).values()]
    for part in [*inner, *([rules["items"]] if "items" in rules else [])]:
        yield from rule_sets(part)


def test_a_sound_plan_has_no_violation(plan: dict[str, Any]) -> None:
    assert list(violations(plan)) == []


def places(value: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything within a document."""
    items: list[tuple[str | int, JsonValue]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_spoilt_plans_are_judged_as_by_jsonschema(plan: dict[str, Any], data: st.DataObject) -> None:
    spoilt: Any = copy.deepcopy(plan)
    path = data.draw(st.sampled_from(list(places(plan))))
    holder = spoilt
    for key in path[:-1]:
        holder = holder[key]
    how = data.draw(st.sampled_from(["change", "remove", "add"]))
    if how == "remove":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder["surplus"] = 1
    else:
        holder[path[-1]] = data.draw(SPOILT)
    assert bool(list(violations(spoilt))) is not VALIDATOR.is_valid(spoilt)


def test_the_place_is_named_and_a_long_value_is_cut() -> None:
    (first, *_) = violations({"schema": ["x" * 1000]})
    assert first.startswith("the document: glmplan_version, created_at")
    described = list(
        violations(json.loads(dumps(make_plan(situation_of("gpu:24GiB", None)))) | {"warnings": "y" * 999})
    )
    assert described == [f'warnings: "{"y" * 59}... is not of type array']
