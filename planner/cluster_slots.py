"""A node cut into slots for replicas: a share of a GPU each, whole GPUs, or the node as one; pure.

Replicas on one GPU share its memory, bandwidth and arithmetic evenly, replicas on one node its main memory and cores:
speeds of a slot are those with all its neighbours busy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan.engine import Engine
from glmplan.machine import Gpu, Machine
from glmplan.model import ModelProfile
from glmplan.planner.judging import Surroundings
from glmplan.planner.spaces import planned_gpus, spaces_of
from glmplan.speed_class import DeviceSpeed, MachineSpeed

# Processes on one GPU take turns; beyond a few, each has hardly a cache of its own.
MOST_PER_GPU: Final = 8


@dataclass(frozen=True, slots=True)
class NodeCase:
    """A node as the search sees it: its machine (or `count` equal ones), room and speeds, engine and model files.

    `models` are the files to choose among, as they lie on this node. `reserve_bytes` stays free on every device.
    `refused` is why the node cannot be used, whatever its memory.
    """

    name: str
    count: int
    machine: Machine
    around: Surroundings
    engine: Engine | None
    models: tuple[ModelProfile, ...]
    notes: tuple[str, ...] = ()
    reserve_bytes: int = 0
    ray_node_id: str | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one replica, `replicas` times on the node; `machine` and `around` are what one of them has."""

    replicas: int
    gpu_ids: tuple[str, ...]
    gpus_each: float
    machine: Machine
    around: Surroundings


@dataclass(frozen=True, slots=True)
class _Cut:
    """`replicas` times `gpus` GPUs (indices of planned ones), or `per_gpu` replicas on each of them."""

    gpus: tuple[int, ...]
    replicas: int
    gpus_each: int = 1
    per_gpu: int = 1


def layouts(node: NodeCase, model: ModelProfile, per_gpu: int | None = None) -> Iterator[tuple[Slot, ...]]:
    """Every way to cut `node` for replicas of `model`; with `per_gpu`, only that many replicas on each GPU."""
    gpus = [gpu for gpu, _ in planned_gpus(node.machine)]
    if not gpus:
        yield (_slot(node, _Cut(gpus=(), replicas=1, gpus_each=0), 1),)
        return
    seen: set[tuple[_Cut, ...]] = set()
    for cuts in _cuts(node, model, per_gpu):
        if cuts and cuts not in seen:
            seen.add(cuts)
            on_node = sum(cut.replicas for cut in cuts)
            yield tuple(_slot(node, cut, on_node) for cut in cuts)


def _cuts(node: NodeCase, model: ModelProfile, per_gpu: int | None) -> Iterator[tuple[_Cut, ...]]:
    """By replicas on each GPU, by GPUs of each replica, and all GPUs together."""
    usable = [usable for _, usable in planned_gpus(node.machine)]
    kinds = _kinds([gpu for gpu, _ in planned_gpus(node.machine)])
    most = [max(1, min(usable[index] for index in kind) // max(1, model.file_bytes)) for kind in kinds]
    if per_gpu is not None:
        yield tuple(_Cut(gpus=kind, replicas=per_gpu * len(kind), per_gpu=per_gpu) for kind in kinds)
        return
    for wanted in range(1, min(MOST_PER_GPU, max(most)) + 1):
        shares = [min(wanted, limit) for limit in most]
        yield tuple(
            _Cut(gpus=kind, replicas=share * len(kind), per_gpu=share)
            for kind, share in zip(kinds, shares, strict=True)
        )
    for together in range(2, max(len(kind) for kind in kinds) + 1):
        yield tuple(
            _Cut(gpus=kind[: len(kind) // together * together], replicas=len(kind) // together, gpus_each=together)
            for kind in kinds
            if len(kind) >= together
        )
    if len(kinds) > 1:
        yield (_Cut(gpus=tuple(range(len(usable))), replicas=1, gpus_each=len(usable)),)


def _kinds(gpus: Sequence[Gpu]) -> list[tuple[int, ...]]:
    """Indices of equal GPUs."""
    found: dict[tuple[str, int | None], list[int]] = {}
    for index, gpu in enumerate(gpus):
        found.setdefault((gpu.name, gpu.memory_total_bytes), []).append(index)
    return [tuple(indices) for indices in found.values()]


def _slot(node: NodeCase, cut: _Cut, on_node: int) -> Slot:
    planned = planned_gpus(node.machine)
    # Which of equal GPUs a replica gets is decided when it starts: it is planned for the one with the least room.
    smallest = sorted(cut.gpus, key=lambda index: planned[index][1])[: cut.gpus_each]
    gpus = tuple(_part_of(*planned[index], f"gpu{place}", cut.per_gpu) for place, index in enumerate(sorted(smallest)))
    machine = _machine(node.machine, gpus, on_node)
    around = replace(
        node.around,
        spaces=spaces_of(machine, reserve_bytes=node.reserve_bytes),
        speed=_speed(node.around.speed, tuple(sorted(smallest)), cut.per_gpu, on_node),
        n_threads=max(1, node.around.n_threads // on_node),
    )
    return Slot(
        replicas=cut.replicas,
        gpu_ids=tuple(planned[index][0].id for index in cut.gpus),
        gpus_each=cut.gpus_each / cut.per_gpu,
        machine=machine,
        around=around,
    )


def _part_of(gpu: Gpu, usable: int, name: str, per_gpu: int) -> Gpu:
    free = gpu.memory_free_bytes
    return replace(
        gpu,
        id=name,
        memory_usable_bytes=usable // per_gpu,
        memory_free_bytes=None if free is None else free // per_gpu,
    )


def _machine(machine: Machine, gpus: tuple[Gpu, ...], on_node: int) -> Machine:
    memory, cpu = machine.memory, machine.cpu
    known = [value for value in (memory.available_bytes, memory.limit_bytes, memory.total_bytes) if value is not None]
    # Without any the search says that main memory is not known.
    room = min(known) // on_node if known else None
    return replace(
        machine,
        gpus=gpus,
        memory=replace(memory, available_bytes=room),
        cpu=replace(cpu, usable_cores=max(1, cpu.usable_cores // on_node)),
    )


def _speed(speed: MachineSpeed, gpus: tuple[int, ...], per_gpu: int, on_node: int) -> MachineSpeed:
    hybrid = speed.hybrid
    return replace(
        speed,
        gpus=tuple(replace(_shared(speed.gpus[index], per_gpu), id=f"gpu{place}") for place, index in enumerate(gpus)),
        host=_shared(speed.host, on_node),
        hybrid=replace(
            hybrid,
            mapped_bytes_per_s=hybrid.mapped_bytes_per_s / on_node,
            pinned_bytes_per_s=hybrid.pinned_bytes_per_s / on_node,
        ),
    )


def _shared(device: DeviceSpeed, among: int) -> DeviceSpeed:
    """What one of `among` busy replicas gets of a device: they take turns, in starting kernels too."""
    if among == 1:
        return device
    return replace(
        device,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s / among,
        flops_per_s=device.flops_per_s / among,
        # On a CPU every replica has cores of its own, and fewer threads that wait for each other.
        launches=device.launches / among if device.context_by_math else device.launches * among,
    )
