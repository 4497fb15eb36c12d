"""What a token reads and computes in each layer, as prefix sums: any range of layers in a few subtractions.

Bytes are those of the file's tensors; the embedding row of a token is nothing. An expert tensor counts in full: how
many experts a batch of tokens reaches is `distinct_share`.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from glmplan.ggml_types import GgmlType, row_bytes
from glmplan.model import MlaAttention, ModelProfile
from glmplan.planner.kv_cache import row_widths
from glmplan.planner.layers import OffloadTable
from glmplan.planner.sameness import Same

# The graph of GLM-4.7-Flash is the unit of `launch_ms`; others are smaller by their operations per layer
# (llama.cpp's graph node counts: 3,363 nodes for 47 layers of MLA with experts).
_UNIT_LAYERS = 47
_NODES_WITHOUT_MLA = 0.72
_NODES_DENSE = 0.4


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Per layer, the output layer last: bytes outside the experts, bytes of all experts, parameters a token uses."""

    resident: tuple[float, ...]
    experts: tuple[float, ...]
    parameters: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reads:
    """Prefix sums for one set of overrides; index `i` sums the layers before `i`.

    `on_host` is the part of the experts that overrides keep in main memory, `hybrid` the layers that have some there.
    """

    resident: tuple[float, ...]
    experts: tuple[float, ...]
    on_host: tuple[float, ...]
    hybrid: tuple[float, ...]
    parameters: tuple[float, ...]


def layer_work(model: ModelProfile, file_scale: float) -> LayerWork:
    """Sort the tensors of `model` by layer.

    Args:
        model: the file; multi-token-prediction blocks are not read.
        file_scale: published size of the very file over `model`'s, where only the size is known.
    """
    return _shared_work(Same(model), file_scale)


@lru_cache(maxsize=64)
def _shared_work(same: Same[ModelProfile], file_scale: float) -> LayerWork:
    model = same.value
    n_main = model.n_layer - model.n_nextn_layers
    resident, experts, parameters = ([0.0] * (model.n_layer + 1) for _ in range(3))
    share = model.n_expert_used / model.n_expert if model.n_expert else 1.0
    for tensor in model.tensors:
        if tensor.name.startswith("token_embd"):
            continue
        layer = int(tensor.name.split(".")[1]) if tensor.name.startswith("blk.") else model.n_layer
        if n_main <= layer < model.n_layer:
            continue
        is_expert = "_exps" in tensor.name
        (experts if is_expert else resident)[layer] += tensor.n_bytes * file_scale
        parameters[layer] += tensor.n_elements * (share if is_expert else 1.0)
    return LayerWork(tuple(resident), tuple(experts), tuple(parameters))


def reads_of(work: LayerWork, table: OffloadTable) -> Reads:
    """Prefix sums of `work` with the overrides of `table`."""
    kept = [after - before for before, after in zip(table.host_overridden, table.host_overridden[1:], strict=False)]
    on_host = [experts * _part(host, experts) for host, experts in zip(kept, work.experts, strict=True)]
    return Reads(
        resident=_prefix(work.resident),
        experts=_prefix(work.experts),
        on_host=_prefix(on_host),
        hybrid=_prefix([1.0 if host > 0 else 0.0 for host in on_host]),
        parameters=_prefix(work.parameters),
    )


def _part(host_bytes: float, expert_bytes: float) -> float:
    """Part of a layer's experts in main memory; overrides are thought to name experts."""
    return min(1.0, host_bytes / expert_bytes) if expert_bytes else 0.0


def _prefix(values: list[float] | tuple[float, ...]) -> tuple[float, ...]:
    return tuple(accumulate(values, initial=0.0))


def distinct_share(model: ModelProfile, n_tokens: float) -> float:
    """Part of a layer's experts that `n_tokens` independent tokens reach: 1 - (1 - used / all) ^ n."""
    if not model.n_expert:
        return 1.0
    missed: float = (1.0 - model.n_expert_used / model.n_expert) ** n_tokens
    return 1.0 - missed


def context_flops(model: ModelProfile) -> float:
    """FLOPs of attention per layer, token and token of context.

    llama.cpp computes MLA absorbed, in prefill too (src/models/deepseek2.cpp): 2 n_head (576 + 512).
    """
    attention = model.attention
    if isinstance(attention, MlaAttention):
        width = attention.kv_lora_rank + attention.rope_dimensions + attention.kv_lora_rank
        return 2.0 * attention.n_head * width
    return 2.0 * attention.n_head * (attention.key_length + attention.value_length)


def context_bytes(model: ModelProfile, cache_type: GgmlType) -> int:
    """Bytes of cache per layer and token of context."""
    return sum(row_bytes(cache_type, width) for width in row_widths(model.attention))


def graph_size(model: ModelProfile) -> float:
    """Nodes of the graph of one token, as a multiple of GLM-4.7-Flash's."""
    n_main = model.n_layer - model.n_nextn_layers
    per_layer = 1.0 if isinstance(model.attention, MlaAttention) else _NODES_WITHOUT_MLA
    return n_main / _UNIT_LAYERS * (per_layer if model.n_expert else _NODES_DENSE)
