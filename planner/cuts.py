"""Which stand-ins to rehearse with: cuts of few layers that together tell every kind of layer of a plan apart.

One cut has a single layer of each kind, and for every kind there is one with several of it; their differences are
the time per layer. A cut of the leading layers alone is cheap to fill to a depth. The layers of a cut are spread
over the model, because quantisation gives its ends more bits than its middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan.errors import UnsupportedModel
from glmplan.ggml_types import cache_type
from glmplan.model import ModelProfile
from glmplan.placement import Placement, TensorOverride
from glmplan.planner.kv_cache import bytes_per_token
from glmplan.planner.memory import MemoryModel
from glmplan.planner.speed_reads import layer_work
from glmplan.rehearsal import Cut, LayerKind
from glmplan.units import MIB

LEAD: Final = "lead"
BASE: Final = "base"
_HOST: Final = "host"
# An engine beside its weights and its cache: interpreter and libraries, compute buffers, page tables.
_ENGINE_BYTES: Final = 300 * MIB
_MOST_LAYERS: Final = 12
# Layers more than one that a cut should have for its difference to be well above the noise.
_ENOUGH_LAYERS: Final = 4
_EXPERTS: Final = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"


@dataclass(frozen=True, slots=True)
class LayerShare:
    """How many of a model's layers are of one kind: counted, and by the bytes a token reads of them."""

    kind: LayerKind
    layers: tuple[int, ...]
    count: float
    by_bytes: float


class Stack:
    """The layers of one model under one placement, by kind."""

    def __init__(self, memory: MemoryModel, placement: Placement) -> None:
        """Sort the layers of `memory.model`.

        Raises:
            UnsupportedModel: too few layers to tell a layer from the rest.
        """
        model = memory.model
        self.model = model
        self.n_main = memory.layers.n_main
        self.n_lead = max(1, model.n_layer_dense_lead)
        if self.n_main - self.n_lead < 2:
            message = f"{model.name} has {self.n_main} layers: too few to cut"
            raise UnsupportedModel(message, hint="measure it whole: glmplan bench")
        self._active = _active_bytes(model)
        body = self._active[self.n_lead : self.n_main]
        self._mean = sum(body) / len(body)
        self.devices = _devices(memory, placement)
        self._on_host = _host_shares(memory, placement)
        self.bytes_of = _layer_bytes(model)

    def weight(self, layer: int) -> float:
        """Bytes a token reads of a layer, as a multiple of the mean of all layers behind the first."""
        return self._active[layer] / self._mean

    def shares(self) -> tuple[LayerShare, ...]:
        """The kinds of layers behind the first, in the order of the model."""
        kinds: dict[LayerKind, list[tuple[int, float]]] = {}
        for layer in range(self.n_lead, self.n_main):
            moved = self._on_host[layer]
            here = LayerKind(device=self.devices[layer])
            for kind, part in ((replace(here, experts_on_host=True), moved), (here, 1.0 - moved)):
                if part > 0:
                    kinds.setdefault(kind, []).append((layer, part))
        order = sorted(kinds, key=lambda kind: (self.devices.index(kind.device), not kind.experts_on_host))
        return tuple(
            LayerShare(
                kind=kind,
                layers=tuple(layer for layer, _ in kinds[kind]),
                count=sum(part for _, part in kinds[kind]),
                by_bytes=sum(part * self.weight(layer) for layer, part in kinds[kind]),
            )
            for kind in order
        )

    def layers_on(self, device: str) -> int:
        """How many layers, the first included, compute their attention on a device."""
        return self.devices[: self.n_main].count(device)


def cuts_for(stack: Stack, placement: Placement, *, n_ctx: int, room_bytes: int) -> tuple[Cut, ...]:
    """Cuts with `n_ctx` tokens of context each: the leading one, one layer of each kind, and several of each.

    Where that leaves enough layers their engines fit into `room_bytes` of memory together, elsewhere one at a time.

    Raises:
        UnsupportedModel: not even the smallest cuts fit.
    """
    shares = stack.shares()
    needed = 0
    for together, fewest in ((True, _ENOUGH_LAYERS), (False, 2)):
        for many in range(_MOST_LAYERS, fewest - 1, -1):
            cuts = _cuts(stack, shares, many)
            sizes = [engine_bytes(stack, cut, placement, n_ctx) for cut in cuts]
            needed = sum(sizes) if together else max(sizes)
            if needed <= room_bytes:
                return cuts
    message = f"the smallest cut of {stack.model.name} {stack.model.quantization} takes {needed} bytes of memory"
    raise UnsupportedModel(
        message,
        hint=f"{room_bytes} bytes are allowed here: rehearse a smaller --quant, or free memory",
        facts={"needed_bytes": needed, "room_bytes": room_bytes},
    )


def _cuts(stack: Stack, shares: Sequence[LayerShare], many: int) -> tuple[Cut, ...]:
    lead = _with(stack, LEAD, shares, [0] * len(shares))
    base = _with(stack, BASE, shares, [1] * len(shares))
    more = [
        _with(
            stack,
            f"more-{share.kind.name}",
            shares,
            [min(many, len(share.layers)) if s is share else 1 for s in shares],
        )
        for share in shares
    ]
    return (lead, base, *(cut for cut in more if len(cut.layers) > len(base.layers)))


def engine_bytes(stack: Stack, cut: Cut, placement: Placement, n_ctx: int) -> int:
    """Main memory that an engine with a cut takes: its weights (a GPU's are read through it), cache, and the rest."""
    cache = bytes_per_token(stack.model.attention, cache_type(placement.cache_type_k), len(cut.layers))
    outside = sum(t.n_bytes for t in stack.model.tensors if not t.name.startswith(("blk.", "token_embd")))
    inside = sum(stack.bytes_of[layer] for layer in cut.layers)
    # Rearranged weights are beside the file's own while loading.
    copies = 2 if placement.repack and any(kind.device == _HOST for kind in cut.kinds) else 1
    return _ENGINE_BYTES + copies * (outside + inside) + n_ctx * cache


def _with(stack: Stack, name: str, shares: Sequence[LayerShare], counts: Sequence[int]) -> Cut:
    """The leading layers and `counts` layers of each kind, spread over that kind's."""
    layers, kinds = list(range(stack.n_lead)), [LayerKind(device=stack.devices[i]) for i in range(stack.n_lead)]
    for share, count in zip(shares, counts, strict=True):
        layers += spread(share.layers, count)
        kinds += [share.kind] * count
    return Cut(name=name, layers=tuple(layers), kinds=tuple(kinds), n_lead=stack.n_lead)


def spread(layers: Sequence[int], count: int) -> list[int]:
    """`count` of `layers`, evenly, each from the middle of its part."""
    return [layers[int((i + 0.5) * len(layers) / count)] for i in range(count)]


def cut_model(model: ModelProfile, cut: Cut) -> ModelProfile:
    """The file of a cut: the chosen layers renumbered, everything outside the layers as it is."""
    places = {layer: place for place, layer in enumerate(cut.layers)}
    inside: list[list[int]] = [[] for _ in cut.layers]
    outside: list[int] = []
    for index, tensor in enumerate(model.tensors):
        if not tensor.name.startswith("blk."):
            outside.append(index)
        elif (place := places.get(int(tensor.name.split(".")[1]))) is not None:
            inside[place].append(index)
    renamed = [
        replace(model.tensors[index], name=f"blk.{place}.{model.tensors[index].name.split('.', 2)[2]}")
        for place, indices in enumerate(inside)
        for index in indices
    ]
    tensors = (*(model.tensors[index] for index in outside), *renamed)
    cut_down = replace(
        model, tensors=tensors, n_layer=len(cut.layers), n_nextn_layers=0, file=None, sha256=None, synthetic=True
    )
    return replace(cut_down, file_bytes=cut_down.tensor_bytes)


def cut_placement(placement: Placement, cut: Cut, *, n_ctx: int) -> Placement:
    """`placement` for a cut: the same knobs, its layers where their kinds say, `n_ctx` tokens of context."""
    gpus = sorted({kind.device for kind in cut.kinds if kind.device != _HOST})
    moved = tuple(
        TensorOverride(pattern=_EXPERTS.format(layer=place))
        for place, kind in enumerate(cut.kinds)
        if kind.experts_on_host
    )
    kept = tuple(override for override in placement.override_tensor if "exps" not in override.pattern)
    counts = [sum(kind.device == gpu for kind in cut.kinds) for gpu in gpus]
    on_gpus = sum(counts) + 1 if placement.n_gpu_layers else 0
    return replace(
        placement,
        n_ctx=n_ctx,
        n_batch=min(placement.n_batch, n_ctx),
        n_ubatch=min(placement.n_ubatch, n_ctx),
        n_gpu_layers=on_gpus,
        n_cpu_moe=0,
        override_tensor=(*moved, *kept),
        tensor_split=_split(placement, gpus, counts),
        n_parallel=1,
        n_outputs=1 if placement.n_outputs == placement.n_parallel else placement.n_outputs,
        load_mtp=False,
        cache_ram_bytes=0,
    )


def _split(placement: Placement, gpus: Sequence[str], counts: Sequence[int]) -> tuple[float, ...]:
    """Layers per GPU of the plan's split; the output layer is the last one's."""
    if not placement.tensor_split:
        return ()
    shares = [0.0] * len(placement.tensor_split)
    for gpu, count in zip(gpus, counts, strict=True):
        shares[int(gpu.removeprefix("gpu"))] = float(count)
    last = max((i for i, share in enumerate(shares) if share), default=0)
    shares[last] += 1.0
    return tuple(shares)


def _active_bytes(model: ModelProfile) -> list[float]:
    """Bytes of each layer that one token reads."""
    work = layer_work(model, 1.0)
    share = model.n_expert_used / model.n_expert if model.n_expert else 1.0
    return [resident + share * experts for resident, experts in zip(work.resident, work.experts, strict=True)]


def _layer_bytes(model: ModelProfile) -> list[int]:
    work = layer_work(model, 1.0)
    return [int(resident + experts) for resident, experts in zip(work.resident, work.experts, strict=True)]


def _devices(memory: MemoryModel, placement: Placement) -> tuple[str, ...]:
    """The device of every layer, the output layer last."""
    names = [_HOST] * (memory.layers.n_all + 1)
    if memory.spaces.gpus and placement.n_gpu_layers:
        for index, (start, end) in enumerate(memory.ranges(placement)):
            names[start:end] = [f"gpu{index}"] * (end - start)
    return tuple(names)


def _host_shares(memory: MemoryModel, placement: Placement) -> list[float]:
    """Of every layer, the part of its experts that is in main memory although the layer is on a GPU."""
    table = memory.layers.offload(placement.n_cpu_moe, placement.override_tensor, load_mtp=False)
    work = layer_work(memory.model, 1.0)
    devices = _devices(memory, placement)
    return [
        min(1.0, (after - before) / experts) if experts and device != _HOST else 0.0
        for before, after, experts, device in zip(
            table.host_overridden, table.host_overridden[1:], work.experts, devices, strict=False
        )
    ]
