"""Tensor types of a published file of which only the size is known: a recipe, grown until it is as large.

Publishers who choose types by importance (Unsloth's UD files) do not say which tensors got more bits. Routed experts
are nine tenths of the weights, so the difference is laid on them, one step of type and one layer at a time, evenly
over the depth: the sum is never below the file's, and no layer is far from its share.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.model import Tensor
from glmplan.profiles.recipe_types import layer_of

# By bytes per weight; of types of one size the one that quantisers put into such files.
_LADDER: Final = (
    GgmlType.IQ1_S, GgmlType.IQ1_M, GgmlType.IQ2_XXS, GgmlType.IQ2_XS, GgmlType.IQ2_S, GgmlType.Q2_K,
    GgmlType.IQ3_XXS, GgmlType.Q3_K, GgmlType.IQ4_XS, GgmlType.Q4_K, GgmlType.Q5_K, GgmlType.Q6_K, GgmlType.Q8_0,
    GgmlType.BF16,
)  # fmt: skip
# Quantisers give the down projections more bits than the others (src/llama-quant.cpp).
_ORDER: Final = ("ffn_down_exps", "ffn_up_exps", "ffn_gate_exps")
# Multiples of the golden ratio spread over [0, 1) evenly however many are taken.
_SPREAD: Final = 0.6180339887498949


def grown(tensors: tuple[Tensor, ...], target_bytes: int) -> tuple[Tensor, ...]:
    """`tensors` with routed experts raised type by type until all together are at least `target_bytes`."""
    found = list(tensors)
    missing = target_bytes - sum(tensor.n_bytes for tensor in found)
    while missing > 0:
        raised = False
        for index in _turns(found):
            larger = _next_type(found[index].type)
            if missing <= 0 or larger is None:
                break
            bigger = replace(found[index], type=larger)
            missing -= bigger.n_bytes - found[index].n_bytes
            found[index] = bigger
            raised = True
        if not raised:
            break
    return tuple(found)


def _turns(tensors: list[Tensor]) -> Iterator[int]:
    """Indices of expert tensors, a whole round of one projection before the next."""
    for part in _ORDER:
        mine = [index for index, tensor in enumerate(tensors) if f".{part}." in tensor.name]
        yield from sorted(mine, key=lambda index: (layer_of(tensors[index].name) or 0) * _SPREAD % 1)


def _next_type(current: GgmlType) -> GgmlType | None:
    """The next larger type; None when there is none."""
    return next((t for t in _LADDER if _bytes_per_weight(t) > _bytes_per_weight(current)), None)


def _bytes_per_weight(ggml_type: GgmlType) -> float:
    elements, size = BLOCKS[ggml_type]
    return size / elements
