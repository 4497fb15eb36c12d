"""The name of a file's quantisation, as llama.cpp calls it."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from glmplan.ggml_types import GgmlType
from glmplan.inspection import TypeBytes
from glmplan.model import Tensor
from glmplan.noun import noun

# `enum llama_ftype` (include/llama.h); 4-6 and 33-35 were removed.
FILE_TYPES: Final[dict[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
_GUESSED_FLAG: Final = 1024

# What a file made mostly of one type is usually called (src/llama-model-loader.cpp, its own guess).
_USUAL_NAMES: Final = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}


@noun
class Quantization:
    """A quantisation by name; `stated` is False when it was concluded from the tensors."""

    name: str
    stated: bool


def quantization_of(file_type: int | None, tensors: Iterable[Tensor]) -> Quantization:
    """The quantisation `general.file_type` names, or the one most bytes are in.

    Args:
        file_type: the key's value, None when absent.
        tensors: the tensors of all shards.
    """
    if file_type is not None and not file_type & _GUESSED_FLAG and file_type in FILE_TYPES:
        return Quantization(name=FILE_TYPES[file_type], stated=True)
    by_type: Counter[GgmlType] = Counter()
    for tensor in tensors:
        by_type[tensor.type] += tensor.n_bytes
    if not by_type:
        return Quantization(name="none", stated=False)
    name = by_type.most_common(1)[0][0].name
    return Quantization(name=_USUAL_NAMES.get(name, name), stated=False)


def type_histogram(tensors: Iterable[Tensor]) -> tuple[TypeBytes, ...]:
    """Tensors and bytes of each GGML type, most bytes first."""
    count: Counter[GgmlType] = Counter()
    size: Counter[GgmlType] = Counter()
    for tensor in tensors:
        count[tensor.type] += 1
        size[tensor.type] += tensor.n_bytes
    ranked = sorted(count, key=lambda kind: (-size[kind], kind))
    return tuple(TypeBytes(type=kind.name, n_tensors=count[kind], bytes=size[kind]) for kind in ranked)
