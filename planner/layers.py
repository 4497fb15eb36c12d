"""Weights by layer: prefix sums that turn any placement into bytes per device in a few additions.

Rules and sources (llama.cpp 0c1e57098): layers go to devices back to front, the output layer is the last index
(src/llama-model.cpp:1556-1605); overrides are regular expressions searched in the tensor's name, the first match
wins (src/llama-model-loader.cpp:1235-1260); CUDA pads rows of quantised tensors to 512 elements and tensors to
128 bytes (ggml/src/ggml-cuda/ggml-cuda.cu:897-920), host buffers pad to 32.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from glmplan.errors import InputError
from glmplan.ggml_types import GgmlType, is_quantized, row_bytes
from glmplan.model import ModelProfile, Tensor
from glmplan.placement import TensorOverride
from glmplan.planner.sameness import Same

_HOST_ALIGNMENT: Final = 32
_LAYER: Final = re.compile(r"blk\.(\d+)\.")
_EXPERTS: Final = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps")


def padded(n_bytes: int, alignment: int) -> int:
    """`n_bytes` rounded up to a multiple of `alignment`."""
    return -(-n_bytes // alignment) * alignment


@dataclass(frozen=True, slots=True)
class BufferRules:
    """How a device's buffers round: rows of quantised tensors to `row_elements` (0: not), tensors to `alignment`."""

    row_elements: int
    alignment: int

    def tensor_bytes(self, tensor_type: GgmlType, width: int, n_bytes: int) -> int:
        """Bytes a tensor with rows of `width` elements and `n_bytes` of data takes."""
        rest = width % self.row_elements if self.row_elements else 0
        if rest and is_quantized(tensor_type):
            n_bytes += row_bytes(tensor_type, self.row_elements - rest)
        return padded(n_bytes, self.alignment)


# CUDA: ggml-cuda.cu:897-920. Others (Metal, remote CPUs): TENSOR_ALIGNMENT of ggml-impl.h:44.
CUDA_RULES: Final = BufferRules(row_elements=512, alignment=128)
PLAIN_RULES: Final = BufferRules(row_elements=0, alignment=_HOST_ALIGNMENT)


def host_tensor_bytes(n_bytes: int) -> int:
    """Bytes a tensor takes in a host buffer."""
    return padded(n_bytes, _HOST_ALIGNMENT)


class _LayerBytes(NamedTuple):
    """One layer: bytes that stay on its GPU, overridden host tensors in file order, all tensors as host bytes."""

    gpu: int
    overridden: int
    largest_overridden: int
    largest_overridden_pair: int
    all_host: int
    largest: int


class OffloadTable:
    """Prefix sums over layers for one set of overrides.

    Index `i` of a prefix tuple sums the layers before `i`; the output layer has index `n_all`, so those tuples
    have `n_all + 2` entries. The others list, per layer, the largest overridden tensor, the largest sum of two
    neighbouring ones, and the largest tensor of all.
    """

    __slots__ = ("gpu", "host_full", "host_overridden", "largest_host", "largest_host_pair", "largest_tensor")

    def __init__(self, rows: Sequence[_LayerBytes]) -> None:
        """Sum the rows of all layers, the output layer last."""
        gpu, overridden, self.largest_host, self.largest_host_pair, host, self.largest_tensor = zip(*rows, strict=True)
        self.gpu = tuple(accumulate(gpu, initial=0))
        self.host_overridden = tuple(accumulate(overridden, initial=0))
        self.host_full = tuple(accumulate(host, initial=0))


@dataclass(frozen=True, slots=True)
class _SizedTensor:
    """A tensor's data, and what it takes in a host and in a GPU buffer; `expert_part` only of routed experts."""

    name: str
    n_bytes: int
    host_bytes: int
    gpu_bytes: int
    expert_part: str | None


_ABSENT: Final = _LayerBytes(0, 0, 0, 0, 0, 0)


class LayerTable:
    """The tensors of one model file, ready for any placement."""

    def __init__(self, model: ModelProfile, rules: BufferRules = CUDA_RULES) -> None:
        """Sort the tensors of `model` by layer; `rules` are those of the GPUs."""
        self.rules = rules
        self.n_all = model.n_layer
        self.n_main = model.n_layer - model.n_nextn_layers
        layers: list[list[Tensor]] = [[] for _ in range(self.n_all + 1)]
        self.input_bytes = embedding_bytes(model)
        for tensor in model.tensors:
            match = _LAYER.match(tensor.name)
            if match:
                layers[int(match[1])].append(tensor)
            elif not _is_input(tensor):
                layers[self.n_all].append(tensor)
        self._layers = tuple(tuple(self._sized(tensor) for tensor in layer) for layer in layers)
        self._expert_tensors = tuple(
            tuple((t.expert_part, t.gpu_bytes) for t in layer if t.expert_part is not None) for layer in self._layers
        )
        held = (sum(n_bytes for _, n_bytes in layer) for layer in self._expert_tensors[: self.n_main])
        self._expert_sums = tuple(accumulate(held, initial=0))
        self.largest_attention = tuple(
            max((t.host_bytes for t in layer if ".attn_" in t.name), default=0) for layer in self._layers
        )
        self._expert_bytes = tuple(sum(t.n_bytes for t in layer if t.expert_part is not None) for layer in self._layers)
        self._tables: dict[tuple[object, ...], OffloadTable] = {}
        self._rows: dict[tuple[int, tuple[int, ...]], _LayerBytes] = {}
        self._rows_left: dict[tuple[int, tuple[str, ...]], _LayerBytes] = {}
        self._whole_rows: dict[bool, tuple[_LayerBytes, ...]] = {}
        self._expert_positions = tuple(
            tuple((i, t.expert_part) for i, t in enumerate(layer) if t.expert_part is not None)
            for layer in self._layers
        )
        self._experts_between: dict[tuple[int, int], dict[int, tuple[tuple[str, int], ...]]] = {}

    def _sized(self, tensor: Tensor) -> _SizedTensor:
        found = _EXPERTS.search(tensor.name)
        n_bytes = tensor.n_bytes
        gpu = self.rules.tensor_bytes(tensor.type, tensor.shape[0], n_bytes)
        return _SizedTensor(tensor.name, n_bytes, host_tensor_bytes(n_bytes), gpu, found[1] if found else None)

    def offload(self, n_cpu_moe: int, overrides: tuple[TensorOverride, ...], *, load_mtp: bool) -> OffloadTable:
        """Prefix sums for `n_cpu_moe` and `overrides` (cached).

        Raises:
            InputError: an override to another buffer than `CPU`, or a broken regular expression.
        """
        key = (n_cpu_moe, overrides, load_mtp)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = self._build(n_cpu_moe, _compile(overrides), load_mtp=load_mtp)
        return table

    def leave(
        self,
        host: Mapping[int, tuple[str, ...]],
        n_cpu_moe: int,
        overrides: tuple[TensorOverride, ...],
        *,
        load_mtp: bool,
    ) -> None:
        """Remember that `n_cpu_moe` and `overrides` name the experts of `host` (parts by layer) and nothing else.

        Whoever wrote the patterns knows what they match: no name has to be searched again.
        """
        if load_mtp not in self._whole_rows:
            whole = tuple(self._row(index, (), load_mtp=load_mtp) for index in range(self.n_all + 1))
            self._whole_rows[load_mtp] = whole
        rows = list(self._whole_rows[load_mtp])
        for index, parts in host.items():
            row = self._rows_left.get((index, parts))
            if row is None:
                leaving = tuple(i for i, part in self._expert_positions[index] if part in parts)
                row = self._rows_left[index, parts] = self._row(index, leaving, load_mtp=True)
            if load_mtp or index < self.n_main:
                rows[index] = row
        self._tables[n_cpu_moe, overrides, load_mtp] = OffloadTable(rows)

    def _build(self, n_cpu_moe: int, patterns: tuple[re.Pattern[str], ...], *, load_mtp: bool) -> OffloadTable:
        def leaves(index: int, tensor: _SizedTensor) -> bool:
            is_cpu_expert = index < n_cpu_moe and tensor.expert_part is not None
            return is_cpu_expert or any(pattern.search(tensor.name) for pattern in patterns)

        rows = [
            self._row(index, tuple(i for i, t in enumerate(layer) if leaves(index, t)), load_mtp=load_mtp)
            for index, layer in enumerate(self._layers)
        ]
        return OffloadTable(rows)

    def _row(self, index: int, leaving: tuple[int, ...], *, load_mtp: bool) -> _LayerBytes:
        """The layer `index` without the tensors `leaving` its GPU (cached); MTP blocks are nothing unless loaded."""
        if self.n_main <= index < self.n_all and not load_mtp:
            return _ABSENT
        row = self._rows.get((index, leaving))
        if row is None:
            layer = self._layers[index]
            overridden = [layer[i].host_bytes for i in leaving]
            all_host = [tensor.host_bytes for tensor in layer]
            row = self._rows[index, leaving] = _LayerBytes(
                gpu=sum(tensor.gpu_bytes for i, tensor in enumerate(layer) if i not in leaving),
                overridden=sum(overridden),
                largest_overridden=max(overridden, default=0),
                largest_overridden_pair=max((a + b for a, b in pairwise([0, *overridden])), default=0),
                all_host=sum(all_host),
                largest=max(all_host, default=0),
            )
        return row

    def expert_bytes(self, layer: int) -> int:
        """Bytes of a layer's routed experts."""
        return self._expert_bytes[layer]

    def expert_tensors(self, layer: int) -> tuple[tuple[str, int], ...]:
        """(part, bytes on a GPU) of a layer's routed experts; the part is `up`, `gate`, `down` or `gate_up`."""
        return self._expert_tensors[layer]

    def expert_bytes_between(self, start: int, end: int) -> int:
        """What `experts_between` take on a GPU."""
        start, end = min(start, self.n_main), min(end, self.n_main)
        return self._expert_sums[max(start, end)] - self._expert_sums[start]

    def experts_between(self, start: int, end: int) -> Mapping[int, tuple[tuple[str, int], ...]]:
        """`expert_tensors` of the main layers in [start, end) that have any (cached: the same object every time)."""
        found = self._experts_between.get((start, end))
        if found is None:
            layers = range(start, min(end, self.n_main))
            found = {index: tensors for index in layers if (tensors := self._expert_tensors[index])}
            self._experts_between[start, end] = found
        return found


def embedding_bytes(model: ModelProfile) -> int:
    """The token embedding, which is always in a host buffer."""
    return _shared_embedding_bytes(Same(model))


@lru_cache(maxsize=256)
def _shared_embedding_bytes(model: Same[ModelProfile]) -> int:
    return sum(host_tensor_bytes(tensor.n_bytes) for tensor in model.value.tensors if _is_input(tensor))


def _is_input(tensor: Tensor) -> bool:
    return tensor.name.startswith("token_embd")


def layer_table(model: ModelProfile, rules: BufferRules) -> LayerTable:
    """The `LayerTable` of a file, made once: every search over the same profile shares it."""
    return _shared_table(Same(model), rules)


@lru_cache(maxsize=256)
def _shared_table(model: Same[ModelProfile], rules: BufferRules) -> LayerTable:
    return LayerTable(model.value, rules)


def _compile(overrides: tuple[TensorOverride, ...]) -> tuple[re.Pattern[str], ...]:
    for override in overrides:
        if override.buffer != "CPU":
            message = f"override {override.pattern!r}={override.buffer}: only overrides to CPU are planned"
            raise InputError(message, hint="write PATTERN=CPU")
    try:
        return tuple(re.compile(override.pattern) for override in overrides)
    except re.error as error:
        message = f"not a regular expression: {error.pattern!r}: {error}"
        raise InputError(message, hint="quote the dots: blk\\.3\\.ffn_up_exps") from error


def _float32(value: float) -> float:
    result: float = struct.unpack("f", struct.pack("f", value))[0]
    return result


@cache
def device_ranges(n_all: int, n_gpu_layers: int, shares: tuple[float, ...]) -> tuple[tuple[int, int], ...]:
    """Layers [first, end) of each GPU, the output layer being `n_all`; layers before the first are on the CPU.

    Args:
        n_all: block_count of the file.
        n_gpu_layers: as in llama.cpp; negative means all.
        shares: `--tensor-split`, or free bytes per device when none was given.

    Float32 arithmetic as in src/llama-model.cpp:1586-1605, because rounding moves layers.
    """
    wanted = n_all + 1 if n_gpu_layers < 0 else min(n_gpu_layers, n_all + 1)
    first_gpu = n_all + 1 - wanted
    if not shares or not wanted:
        return tuple((first_gpu, first_gpu) for _ in shares)
    running, sums = 0.0, list[float]()
    for share in shares:
        running = _float32(running + _float32(share))
        sums.append(running)
    splits = [_float32(value / running) for value in sums]
    owners = [
        min(bisect_right(splits, _float32(_float32(layer) / _float32(wanted))), len(shares) - 1)
        for layer in range(wanted)
    ]
    ranges: list[tuple[int, int]] = []
    start = first_gpu
    for device in range(len(shares)):
        end = start + owners.count(device)
        ranges.append((start, end))
        start = end
    return tuple(ranges)
