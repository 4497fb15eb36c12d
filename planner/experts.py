"""Which routed experts stay in host memory: as few bytes as close a gap, in as few layers as possible; arithmetic only.

Three tensors hold a layer's experts (`up`, `gate`, `down`). Whole layers leave the GPU, and at most one layer a part of
its tensors: every layer with an expert on the host costs a hand-over per token.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from operator import itemgetter
from typing import Final

from glmplan.placement import TensorOverride
from glmplan.planner.sameness import Same
from glmplan.units import MIB

# A cover this close to what is wanted is as good as an exact one; fewer layers count more.
_CLOSE_BYTES: Final = 32 * MIB

Parts = tuple[str, ...]
Experts = Mapping[int, Sequence[tuple[str, int]]]


def choose(experts: Experts, wanted_bytes: int) -> dict[int, Parts] | None:
    """Parts by layer that hold at least `wanted_bytes`, with the least beyond; None when all together hold less.

    Args:
        experts: by layer, (part, bytes) of its expert tensors; layers without experts are not listed.
        wanted_bytes: what has to leave the GPU.
    """
    if wanted_bytes <= 0:
        return {}
    classes = _classes(experts)
    best: tuple[tuple[bool, int, int], tuple[int, ...], _Part | None] | None = None
    for counts, rest in _whole_layers(classes, wanted_bytes):
        n_layers = sum(counts)
        if best is not None and not best[0][0] and n_layers > best[0][1]:
            continue  # more layers than a close cover needs
        part = None
        if rest > 0:
            part = _close(classes, counts, rest)
            if part is None:
                continue
            n_layers += 1
        excess = part[0] if part else -rest
        key = (False, n_layers, excess) if excess <= _CLOSE_BYTES else (True, excess, n_layers)
        if best is None or key < best[0]:
            best = (key, counts, part)
    return _take(experts, classes, best[1], best[2]) if best else None


@dataclass(frozen=True, slots=True)
class _Class:
    """Layers whose expert tensors have the same sizes.

    `subsets`: positions of what one of them can give up in part, by bytes; `subset_bytes`: those bytes, ascending.
    """

    layer_bytes: int
    layers: list[int]
    subsets: list[tuple[int, ...]]
    subset_bytes: list[int]


# Bytes beyond what is wanted, the layer, and the positions of its tensors.
_Part = tuple[int, int, tuple[int, ...]]


def _classes(experts: Experts) -> tuple[_Class, ...]:
    """Classes of `experts`, the largest first; of one mapping asked many times they are found once."""
    return _shared_classes(Same(experts))


@lru_cache(maxsize=1024)
def _shared_classes(experts: Same[Experts]) -> tuple[_Class, ...]:
    classes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for layer in sorted(experts.value):
        classes[tuple(n_bytes for _, n_bytes in experts.value[layer])].append(layer)
    ordered = sorted(classes.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(_class_of(sizes, layers) for sizes, layers in ordered)


def _class_of(sizes: tuple[int, ...], layers: list[int]) -> _Class:
    every = (chosen for size in range(1, len(sizes) + 1) for chosen in combinations(range(len(sizes)), size))
    subsets = sorted(((sum(sizes[i] for i in chosen), chosen) for chosen in every), key=itemgetter(0))
    return _Class(
        layer_bytes=sum(sizes),
        layers=layers,
        subsets=[chosen for _, chosen in subsets],
        subset_bytes=[n_bytes for n_bytes, _ in subsets],
    )


def _whole_layers(classes: Sequence[_Class], wanted_bytes: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Numbers of whole layers per class that come near, and the bytes they leave: at most what one layer holds.

    Every number of the first class, and of the others the most that is not too much.
    """
    if not classes:
        return
    first, others = classes[0], classes[1:]
    one_more = max(kind.layer_bytes for kind in classes)
    elsewhere = sum(kind.layer_bytes * len(kind.layers) for kind in others)
    least = max(0, -((elsewhere + one_more - wanted_bytes) // first.layer_bytes))
    for count in range(least, min(len(first.layers), -(-wanted_bytes // first.layer_bytes)) + 1):
        rest = wanted_bytes - count * first.layer_bytes
        counts: tuple[int, ...] = (count,)
        for other in others:
            fitting = min(len(other.layers), max(0, rest) // other.layer_bytes)
            rest -= fitting * other.layer_bytes
            counts += (fitting,)
        if rest <= one_more:
            yield counts, rest


def _take(experts: Experts, classes: Sequence[_Class], counts: Sequence[int], part: _Part | None) -> dict[int, Parts]:
    taken = {
        layer: tuple([name for name, _ in experts[layer]])
        for kind, count in zip(classes, counts, strict=True)
        for layer in kind.layers[:count]
    }
    if part is not None:
        _, layer, chosen = part
        taken[layer] = tuple(experts[layer][i][0] for i in chosen)
    return taken


def _close(classes: Sequence[_Class], counts: Sequence[int], rest: int) -> _Part | None:
    """The parts of one more layer that hold `rest` with the least beyond."""
    best: _Part | None = None
    for kind, count in zip(classes, counts, strict=True):
        if count == len(kind.layers):
            continue
        index = bisect_left(kind.subset_bytes, rest)
        if index < len(kind.subset_bytes):
            excess = kind.subset_bytes[index] - rest
            if best is None or excess < best[0]:
                best = (excess, kind.layers[count], kind.subsets[index])
    return best


def overrides(host: Mapping[int, Parts], experts: Experts) -> tuple[int, tuple[TensorOverride, ...]]:
    """`n_cpu_moe` where that says the same, otherwise patterns: whole layers in one, a part of a layer in another."""
    if not host:
        return 0, ()
    lead = min(experts)
    whole = [layer for layer in sorted(host) if len(host[layer]) == len(experts[layer])]
    if len(whole) == len(host) and whole == list(range(lead, lead + len(whole))):
        return lead + len(whole), ()
    groups: dict[Parts, list[int]] = defaultdict(list)
    for layer in sorted(host):
        groups[host[layer]].append(layer)
    return 0, tuple(TensorOverride(pattern=_pattern(layers, parts)) for parts, layers in groups.items())


def _pattern(layers: Sequence[int], parts: Parts) -> str:
    return rf"blk\.({'|'.join(map(str, layers))})\.ffn_({'|'.join(parts)})_exps"
