"""Which layers keep routed experts in main memory, for targets that count layers instead of naming tensors."""

import re
from typing import Final

from glmplan.placement import Placement

_PARTS: Final = ("gate", "up", "down")


def layers_in_main_memory(placement: Placement, n_layer: int) -> int:
    """Layers with any routed expert tensor in main memory; a layer that is there in part counts as a whole.

    `--override-tensor` patterns are searched for in tensor names, as llama.cpp does (src/llama-model-loader.cpp).
    """
    patterns = [override.pattern for override in placement.override_tensor if override.buffer == "CPU"]
    return sum(layer < placement.n_cpu_moe or _is_named(layer, patterns) for layer in range(n_layer))


def has_experts_in_main_memory(placement: Placement) -> bool:
    """Whether the plan keeps any tensors of its GPU layers in main memory."""
    return placement.n_cpu_moe > 0 or bool(placement.override_tensor)


def experts_in_words(placement: Placement, n_layer: int) -> str:
    """For messages: how many layers that concerns."""
    count = layers_in_main_memory(placement, n_layer)
    return f"experts of {count} layers in main memory" if count else "tensors placed by override_tensor"


def _is_named(layer: int, patterns: list[str]) -> bool:
    names = [f"blk.{layer}.ffn_{part}_exps.weight" for part in _PARTS]
    return any(_finds(pattern, name) for pattern in patterns for name in names)


def _finds(pattern: str, name: str) -> bool:
    """Whether the pattern is found in the name; one that is no regular expression here finds nothing."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False
