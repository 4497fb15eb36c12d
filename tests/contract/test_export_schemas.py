"""Our schema validator against jsonschema, and the judges of this machine against files we spoil."""

import copy
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from export_plans import PLANS, full_gpu, hybrid, is_array, is_object, request_of, with_file
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, ValidationError, validate

from glmplan.launchers.export.checks import json_schema
from glmplan.launchers.export.checks.report import JUDGES, Tools
from glmplan.launchers.export.exported import Exported
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.yaml_text import load
from glmplan.placement import TensorOverride

DOCUMENTS = {
    "compose": "compose-spec",
    "continue": "continue",
    "opencode": "opencode",
    "llama-cpp-python": "llama-cpp-python",
    "llama-swap": "llama-swap",
    "vllm-config": "vllm",
    "sglang-config": "sglang",
    "aider": "aider",
}
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70000), st.floats(-1, 1), st.text("ab:/$ x1", max_size=5),
    st.just([]), st.just({}), st.just(["a", "a"]), st.just({"a": 1}),
)  # fmt: skip


def accepted(value: Any, schema: dict[str, Any]) -> bool:
    """What jsonschema says."""
    try:
        validate(value, schema, cls=Draft7Validator)
    except ValidationError:
        return False
    return True


def document(name: str) -> Any:
    return load(export(name, request_of(full_gpu(), api_key_file="/etc/key")).text)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield way
    if is_object(value):
        for name, item in value.items():
            yield from places(item, (*way, name))
    elif is_array(value):
        for index, item in enumerate(value):
            yield from places(item, (*way, index))


def spoilt(value: Any, way: tuple[Any, ...], junk: Any, *, how: str) -> Any:
    """`value` with the thing at `way` replaced, dropped, or joined by an unknown one."""
    if not way:
        return junk
    copied = copy.deepcopy(value)
    parent = copied
    for key in way[:-1]:
        parent = parent[key]
    if how == "drop":
        del parent[way[-1]]
    elif how == "add" and isinstance(parent, dict):
        parent["unheard_of"] = junk
    else:
        parent[way[-1]] = junk
    return copied


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_our_validator_agrees_with_jsonschema_on_spoilt_files(name: str, data: st.DataObject) -> None:
    schema = json_schema.schema(DOCUMENTS[name])
    good = document(name)
    way = data.draw(st.sampled_from(list(places(good))))
    changed = spoilt(good, way, data.draw(JUNK), how=data.draw(st.sampled_from(["replace", "drop", "add"])))
    theirs = accepted(changed, schema)
    assert (json_schema.problems(changed, schema) == ()) is theirs, changed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_shipped_schemas_are_schemas_and_accept_what_we_write(name: str) -> None:
    schema = json_schema.schema(DOCUMENTS[name])
    Draft7Validator.check_schema(schema)
    assert accepted(document(name), schema)


KEYWORDS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "integer"}, 1.0), ({"type": "integer"}, True), ({"type": ["string", "null"]}, None),
    ({"enum": [1, "a"]}, True), ({"const": False}, 0), ({"minimum": 2}, 1), ({"maximum": 2}, 3), ({"minimum": 2}, "x"),
    ({"minLength": 2}, "a"), ({"minItems": 1}, []), ({"uniqueItems": True}, [1, 1]), ({"uniqueItems": True}, [1, True]),
    ({"pattern": "^a"}, "ba"), ({"propertyNames": {"pattern": "^a"}}, {"b": 1}), ({"not": {"type": "string"}}, "a"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 3), ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a"),
    ({"allOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}), ({"properties": {"a": False}}, {"a": 1}),
    ({"patternProperties": {"^x-": {}}, "additionalProperties": False}, {"x-a": 1, "y": 2}),
    ({"additionalProperties": {"type": "integer"}}, {"a": "b"}), ({"items": {"type": "integer"}}, [1, "a"]),
    ({"$ref": "#/definitions/a", "definitions": {"a": {"type": "integer"}}}, "x"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), KEYWORDS)
def test_every_keyword_means_what_it_means_to_jsonschema(schema: dict[str, Any], value: Any) -> None:
    theirs = accepted(value, schema)
    assert (json_schema.problems(value, schema) == ()) is theirs


def here() -> Tools:
    """The judges of this machine, without llama-server."""
    return Tools(programs={name: path for name in JUDGES if (path := shutil.which(name))})


@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("name", ["script", "systemd", "launchd", "compose", "quadlet", "powershell"])
def test_the_judges_of_this_machine_accept_what_we_write(name: str, plan_name: str) -> None:
    for server in (None, "/bin/true"):
        report = check(name, export(name, request_of(PLANS[plan_name](use_mlock=True), server=server)), here())
        assert report.problems == ()
    if name == "systemd":
        assert (report.by[0] == "systemd-analyze verify") is (shutil.which("systemd-analyze") is not None)


@pytest.mark.parametrize(
    "file", ["/srv/100% $HOME/a b.gguf", '/srv/it\'s "the" model\\x.gguf', "/srv/ünï—文.gguf", "/srv/;#=.gguf"]
)
def test_systemd_accepts_odd_names(file: str) -> None:
    plan = with_file(hybrid(override_tensor=(TensorOverride(pattern=r"blk\.(1|2)\.ffn_.*_exps$"),)), file)
    exported = export("systemd", request_of(plan, server="/bin/true"))
    assert check("systemd", exported, here()).problems == ()


def test_a_unit_that_systemd_would_not_understand_is_refused_by_whoever_is_here() -> None:
    exported = export("systemd", request_of(full_gpu(), server="/bin/true"))
    spoilt_text = exported.text.replace("--no-webui", "--no-webui %q")
    report = check("systemd", Exported(text=spoilt_text, suffix=".service"), here())
    assert report.problems
    unknown = exported.text.replace("OOMPolicy=", "OOMPolice=")
    report = check("systemd", Exported(text=unknown, suffix=".service"), here())
    assert bool(report.problems) is (shutil.which("systemd-analyze") is not None)
