"""Our YAML writer: what every reader gives back is what was written."""

import math
from typing import Any

import pytest
import yaml
from export_plans import is_array, is_object
from hypothesis import given
from hypothesis import strategies as st

from glmplan.launchers.export.yaml_text import dump, dump_list, load

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=30)
SCALARS = st.one_of(
    TEXTS, st.integers(-(2**53), 2**53), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=12,
)


def flattened(value: Any) -> Any:
    """Sequences in sequences are not written in block style by us; nobody asks for them."""
    if is_object(value):
        return {key: flattened(item) for key, item in value.items()}
    if is_array(value):
        return ["list" if is_array(item) else flattened(item) for item in value]
    return value


@given(document=st.dictionaries(TEXTS, VALUES.map(flattened), min_size=1, max_size=5))
def test_both_readers_give_back_what_was_written(document: dict[str, Any]) -> None:
    text = dump(document)
    assert yaml.safe_load(text) == document
    assert load(text) == document


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "No", "y", "null", "~", "1e3", "0x1f", "1_000", "12:30", "2026-01-01", ".5", "="]
)
def test_words_that_yaml_takes_for_something_else_stay_texts(word: str) -> None:
    assert yaml.safe_load(dump({"value": word})) == {"value": word}
    assert yaml.safe_load(dump({word: 1})) == {word: 1}


def test_the_layout_is_plain() -> None:
    document = {"a": {"b": [1, "x y"], "c": []}, "d": [{"e": True, "f": None}], "g": "one\ntwo", "h": 1.0}
    assert dump(document) == (
        'a:\n  b:\n    - 1\n    - "x y"\n  c: []\nd:\n  - e: true\n    f: null\ng: |-\n  one\n  two\nh: 1.0\n'
    )
    assert dump_list([{"a": 1, "b": {"c": 2}}]) == "- a: 1\n  b:\n    c: 2\n"


@pytest.mark.parametrize("text", ["{", "a: !!python/object:os.system {}", "\t- x", "a: b: c"])
def test_what_is_no_yaml_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(text)


def test_floats_keep_their_value() -> None:
    assert math.isclose(load(dump({"x": 0.1 + 0.2}))["x"], 0.1 + 0.2, rel_tol=0)
