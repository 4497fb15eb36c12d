"""Room on each device, as a memory model needs it: what a Machine says, minus what the user keeps free."""

from collections.abc import Mapping
from enum import StrEnum

from glmplan.errors import InputError
from glmplan.machine import Gpu, Machine, Vendor
from glmplan.noun import noun


class GpuKind(StrEnum):
    """Whose allocator rules and overheads apply."""

    CUDA = "cuda"
    METAL = "metal"
    REMOTE_CPU = "remote-cpu"


@noun
class GpuSpace:
    """One GPU: `usable_bytes` is the budget, `free_bytes` what llama.cpp sees when it splits by free memory."""

    id: str
    kind: GpuKind
    usable_bytes: int
    free_bytes: int
    unified: bool = False


@noun
class HostSpace:
    """Main memory that the engine may take."""

    usable_bytes: int


@noun
class Spaces:
    """All devices of a plan."""

    gpus: tuple[GpuSpace, ...]
    host: HostSpace


_PLANNED_VENDORS = {Vendor.NVIDIA: GpuKind.CUDA, Vendor.APPLE: GpuKind.METAL}


def spaces_of(
    machine: Machine, *, reserve_bytes: int = 0, more_reserve_bytes: Mapping[str, int] | None = None
) -> Spaces:
    """The room of `machine`; `reserve_bytes` stays free on every device, `more_reserve_bytes` on those it names by id.

    GPUs whose memory or vendor is outside the memory model are left out (a probe note says so).

    Raises:
        InputError: the host's memory is not known.
    """
    more = more_reserve_bytes or {}
    gpus = tuple(
        GpuSpace(
            id=f"gpu{index}",
            kind=_PLANNED_VENDORS[gpu.vendor],
            usable_bytes=max(0, usable - reserve_bytes - more.get(f"gpu{index}", 0)),
            free_bytes=gpu.memory_free_bytes or usable,
            unified=gpu.unified,
        )
        for index, (gpu, usable) in enumerate(planned_gpus(machine))
    )
    known = [value for value in (machine.memory.available_bytes, machine.memory.limit_bytes) if value is not None]
    if not known and machine.memory.total_bytes is None:
        message = "the size of main memory is not known"
        raise InputError(message, hint="name it: --on cpu:32GiB, or --ram 32GiB")
    usable = min(known) if known else machine.memory.total_bytes or 0
    return Spaces(gpus=gpus, host=HostSpace(usable_bytes=max(0, usable - reserve_bytes - more.get("host", 0))))


def planned_gpus(machine: Machine) -> tuple[tuple[Gpu, int], ...]:
    """GPUs the memory model covers, each with the bytes a new process may take."""
    chosen: list[tuple[Gpu, int]] = []
    for gpu in machine.gpus:
        usable = gpu.memory_usable_bytes if gpu.memory_usable_bytes is not None else gpu.memory_free_bytes
        if gpu.vendor in _PLANNED_VENDORS and usable is not None:
            chosen.append((gpu, usable))
    return tuple(chosen)
