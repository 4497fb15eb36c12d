"""Plans as JSON: against the shipped schema, against pydantic, and beyond both: sums and ranges."""

import copy
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import situation_of
from glmplan.errors import InputError
from glmplan.jsonio import dumps, loads
from glmplan.plan import Plan

MACHINES = ["cpu:32GiB", "gpu:24GiB", "gpu:12GiB", "rtx-4090", "2x rtx-3090", "apple-m4-max:64", "gpu:8GiB,16GiB"]


Complaints = Callable[[Any], list[str]]


@pytest.fixture(scope="module")
def complaints() -> Complaints:
    """What the shipped schema has against a document."""
    schema = json.loads(resources.files("glmplan.schemas").joinpath("plan-1.json").read_text("utf-8"))
    validator: Any = Draft202012Validator(schema)
    validator.check_schema(schema)
    return lambda document: [error.message for error in validator.iter_errors(document)]


@pytest.mark.parametrize("on", MACHINES)
def test_a_plan_is_valid_and_adds_up(on: str, complaints: Complaints) -> None:
    document: dict[str, Any] = json.loads(dumps(make_plan(situation_of(on, None))))
    assert complaints(document) == []
    ledgers = [document["memory"], *(other["memory"] for other in document["alternatives"])]
    for row in (row for ledger in ledgers for row in ledger["devices"]):
        parts = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes", "margin_bytes")
        assert row["usable_bytes"] == sum(row[part] for part in parts)
    speeds = [document["speed"], *(other["speed"] for other in document["alternatives"])]
    for speed in speeds:
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "tpot_ms"):
            estimate = speed[name]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_a_plan_survives_the_round_trip() -> None:
    plan = make_plan(situation_of("gpu:16GiB", "64GiB"))
    assert loads(Plan, dumps(plan), origin="test") == plan


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("placement", "n_gpu_layer"), 3),
        (("placement", "n_ctx"), "many"),
        (("schema",), "glmplan/plan/2"),
        (("memory", "devices", 0, "weights_bytes"), -1.5),
        (("speed", "decode_tokens_per_s", "basis"), "guessed"),
    ],
)
def test_a_spoilt_plan_is_refused_with_its_path(
    path: tuple[str | int, ...], value: object, complaints: Complaints
) -> None:
    document = json.loads(dumps(make_plan(situation_of("gpu:24GiB", "64GiB"))))
    spoilt = copy.deepcopy(document)
    place: Any = spoilt
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert complaints(spoilt)
    with pytest.raises(InputError) as refused:
        loads(Plan, json.dumps(spoilt), origin="plan.json")
    assert str(path[-1]) in refused.value.message or "schema" in refused.value.message
