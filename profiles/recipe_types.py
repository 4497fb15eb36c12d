"""A quantisation recipe applied to tensor shapes: which type each tensor gets.

A recipe has a `default` type and `rules`; the first rule whose `pattern` is found in the tensor's name, and whose
`layers` hold the tensor's, wins. Norms, routers and expert biases are f32 in every llama.cpp file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from glmplan.errors import ProfileError
from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.model import Tensor

# f32 in every llama.cpp file: norms, router, expert bias, state-space parameters (src/llama-quant.cpp).
_ALWAYS_F32: Final = re.compile(
    r"norm\.weight$|ffn_gate_inp\.weight$|exp_probs_b\.bias$|enorm|hnorm|\.bias$|ssm_(a|d|conv1d)(\.weight)?$"
)
_LAYER: Final = re.compile(r"blk\.(\d+)\.")


def typed(
    shapes: Iterable[tuple[str, tuple[int, ...]]], recipe: Mapping[str, Any], n_layer_full: int
) -> tuple[Tensor, ...]:
    """The tensors of `shapes` with the types of `recipe`.

    Args:
        shapes: names and shapes, ne0 first.
        recipe: `name`, `default` and perhaps `rules`.
        n_layer_full: layers of the whole model; what lies behind them (nextn) is treated like the last of them.

    Raises:
        ProfileError: a row of a tensor is not whole blocks of its type.
    """
    return tuple(
        Tensor(name=name, type=_type_of(name, shape, recipe, n_layer_full), shape=shape) for name, shape in shapes
    )


def layer_of(name: str) -> int | None:
    """The layer a tensor belongs to, None for those outside layers."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def _type_of(name: str, shape: tuple[int, ...], recipe: Mapping[str, Any], n_layer_full: int) -> GgmlType:
    if _ALWAYS_F32.search(name):
        return GgmlType.F32
    layer = layer_of(name)
    chosen = GgmlType[recipe["default"]]
    for rule in recipe.get("rules", ()):
        in_layers = "layers" not in rule or (
            layer is not None and min(layer, n_layer_full - 1) in _layers(str(rule["layers"]))
        )
        if in_layers and re.search(rule["pattern"], name):
            chosen = GgmlType[rule["type"]]
            break
    if shape[0] % BLOCKS[chosen][0]:
        message = f"{recipe['name']}: {name} has rows of {shape[0]}, not whole blocks of {chosen.name}"
        raise ProfileError(message, hint="add a rule for this tensor to the recipe")
    return chosen


@cache
def _layers(text: str) -> frozenset[int]:
    """Layers of a rule: `0-4,7,10-40/3` (a step after the slash)."""
    chosen: set[int] = set()
    for part in text.split(","):
        span, _, step = part.strip().partition("/")
        first, _, last = span.partition("-")
        chosen.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return frozenset(chosen)


def with_changes(recipe: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """`recipe` with rules that come before its own."""
    return {**recipe, "rules": [*changes, *recipe.get("rules", ())]}
