"""Machines that are not here, from catalog rows or bare sizes; every assumption is a note. See docs/machines.md."""

import re
from statistics import median
from typing import Final

from glmplan.machine import Cpu, Gpu, HostMemory, Machine, OperatingSystem, PcieLink, ProbeNote, Vendor
from glmplan.noun import noun
from glmplan.profiles.device_rows import Device, HostPlatform, all_devices, all_host_platforms
from glmplan.profiles.probes.bandwidth import ASSUMED_PLATFORM
from glmplan.profiles.probes.metal import fraction_of
from glmplan.units import GIB, MIB, format_bytes

ASSUMED_MACOS: Final = "26"
ASSUMED_CORES: Final = 8
LEAST_HOST_BYTES: Final = 32 * GIB
_PCIE_GENERATION: Final = {"7": 3, "8": 4, "9": 5, "10": 5, "12": 5}


@noun
class Card:
    """One discrete GPU to assume; without a device it is only a size."""

    total_bytes: int
    free_bytes: int | None = None
    device: Device | None = None
    why: str = ""


def driver_reserve_bytes(total_bytes: int) -> int:
    """What an idle driver keeps of a card: 512 MiB up to 32 GiB, 640 MiB above.

    The highest `reserved` of idle cards in public nvidia-smi captures is 460 MiB up to 32 GiB (RTX 4000 SFF Ada) and
    614 MiB above (H200): github.com/utkuozdemir/nvidia_gpu_exporter, github.com/influxdata/telegraf.
    """
    return (512 if total_bytes <= 32 * GIB else 640) * MIB


def system_reserve_bytes(total_bytes: int) -> int:
    """What an operating system and its desktop take of main memory: an eighth, at most 4 GiB."""
    return min(4 * GIB, total_bytes // 8)


def default_host_bytes(cards: tuple[Card, ...]) -> int:
    """Host memory when `--ram` is absent: the next power of two GiB that holds all GPU memory, at least 32 GiB."""
    size, wanted = LEAST_HOST_BYTES, sum(card.total_bytes for card in cards)
    while size < wanted:
        size *= 2
    return size


def cpu_machine(memory_bytes: int, *, source: str) -> Machine:
    """A machine without a GPU."""
    notes = [_host_note("cpu, memory.bandwidth_bytes_per_s")]
    return Machine(os=_linux(), cpu=_cpu(), memory=_host_memory(memory_bytes), notes=tuple(notes), source=source)


def gpu_machine(cards: tuple[Card, ...], ram_bytes: int | None, *, source: str) -> Machine:
    """A host with discrete NVIDIA cards."""
    host_bytes = ram_bytes if ram_bytes is not None else default_host_bytes(cards)
    notes = [_host_note("cpu, memory.bandwidth_bytes_per_s")]
    if ram_bytes is None:
        notes.append(
            _note(
                "memory.total_bytes",
                f"{format_bytes(host_bytes)} of host memory are assumed",
                "say it with --ram 64GiB",
            )
        )
    notes += [_note("gpus", why) for why in dict.fromkeys(card.why for card in cards) if why]
    gpus: list[Gpu] = []
    for index, card in enumerate(cards):
        gpu, said = _card(f"gpu{index}", card)
        gpus.append(gpu)
        notes += said
    return Machine(
        os=_linux(), cpu=_cpu(), memory=_host_memory(host_bytes), gpus=tuple(gpus), notes=tuple(notes), source=source
    )


def unified_machine(device: Device, memory_bytes: int, *, source: str, why: str) -> Machine:
    """A machine whose CPU and GPU share one memory."""
    notes = [_note("gpus", why)] if why else []
    free = memory_bytes - system_reserve_bytes(memory_bytes)
    limit = None
    if device.vendor is Vendor.APPLE:
        fraction, rule = fraction_of(memory_bytes, ASSUMED_MACOS)
        limit = int(memory_bytes * fraction)
        notes.append(
            _note(
                "gpu0.memory_limit_bytes", f"Metal's limit is assumed to be {fraction:.1%} of memory, the rule {rule}"
            )
        )
    usable = free if limit is None else min(limit, free)
    notes.append(
        _note("memory.available_bytes", f"{format_bytes(memory_bytes - free)} are assumed to be in use by the system")
    )
    if device.bandwidth_bytes_per_s is None:
        notes.append(_note("gpu0.bandwidth_bytes_per_s", "the catalog has no sourced bandwidth for this device"))
    gpu = Gpu(
        id="gpu0", name=device.name, vendor=device.vendor, uuid=None, memory_total_bytes=memory_bytes,
        memory_free_bytes=free, memory_usable_bytes=usable, bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        compute_capability=device.compute_capability, unified=True, cores=max(device.gpu_cores, default=None),
        catalog_id=device.id, memory_limit_bytes=limit, memory_source="assumed", bandwidth_source="catalog",
        peak_flops_per_s=device.peak_flops_per_s,
    )  # fmt: skip
    memory = HostMemory(total_bytes=memory_bytes, limit_bytes=None, available_bytes=free, unified=True,
                        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s, bandwidth_source="catalog")  # fmt: skip
    apple = device.vendor is Vendor.APPLE
    cores = [int(count) for count in re.findall(r"(\d+)[PES]", (device.cpu_cores or "").partition("/")[0])]
    if not cores:
        notes.append(_note("cpu.physical_cores", f"{ASSUMED_CORES} cores are assumed"))
    cpu = Cpu(
        name=device.name.partition(" (")[0], physical_cores=sum(cores) or ASSUMED_CORES,
        usable_cores=sum(cores) or ASSUMED_CORES, features=("asimd", "asimddp"),
        performance_cores=cores[0] if len(cores) > 1 else None, architecture="arm64" if apple else "aarch64",
    )  # fmt: skip
    system = OperatingSystem(system="macOS", version=ASSUMED_MACOS, container=False) if apple else _linux()
    return Machine(os=system, cpu=cpu, memory=memory, gpus=(gpu,), notes=tuple(notes), source=source)


def _card(name_id: str, card: Card) -> tuple[Gpu, list[ProbeNote]]:
    device = card.device
    notes: list[ProbeNote] = []
    total = (
        device.reported_total_bytes
        if device and device.reported_total_bytes and len(device.memory_options_bytes) == 1
        else card.total_bytes
    )
    free = card.free_bytes
    if free is None:
        free = max(0, total - driver_reserve_bytes(total))
        notes.append(_note(f"{name_id}.memory_usable_bytes",
                           f"{format_bytes(total - free)} of {format_bytes(total)} are assumed to be the driver's",
                           "say it with gpu:TOTAL/FREE"))  # fmt: skip
    bandwidth, source = _bandwidth(card)
    if source != "catalog":
        notes.append(_note(f"{name_id}.bandwidth_bytes_per_s", f"not known; {source}" if bandwidth else "not known",
                           "name the device with --on"))  # fmt: skip
    capability = device.compute_capability if device else None
    generation = _PCIE_GENERATION.get((capability or "").partition(".")[0])
    return Gpu(
        id=name_id, name=device.name if device else f"GPU with {format_bytes(total)}", vendor=Vendor.NVIDIA, uuid=None,
        memory_total_bytes=total, memory_free_bytes=free, memory_usable_bytes=free, bandwidth_bytes_per_s=bandwidth,
        compute_capability=capability, pcie=PcieLink(generation=generation, width=16) if generation else None,
        catalog_id=device.id if device else None, memory_source="given" if card.free_bytes is not None else "assumed",
        bandwidth_source=source, peak_flops_per_s=device.peak_flops_per_s if device else None,
    ), notes  # fmt: skip


def _bandwidth(card: Card) -> tuple[int | None, str]:
    """The row's bandwidth; for a bare size the median of desktop cards sold with the nearest size."""
    if card.device and card.device.bandwidth_bytes_per_s:
        return card.device.bandwidth_bytes_per_s, "catalog"
    rows = [row for row in all_devices() if row.kind == "nvidia_discrete"]
    known = [
        (abs(size - card.total_bytes), row.bandwidth_bytes_per_s)
        for row in rows
        if row.bandwidth_bytes_per_s
        for size in row.memory_options_bytes
    ]
    nearest = min(distance for distance, _ in known)
    similar = [bandwidth for distance, bandwidth in known if distance == nearest]
    return round(median(similar)), f"assumed: median of {len(similar)} catalog cards of this size"


def _platform() -> HostPlatform:
    return next(row for row in all_host_platforms() if row.id == ASSUMED_PLATFORM)


def _linux() -> OperatingSystem:
    return OperatingSystem(system="Linux", version=None, container=False)


def _cpu() -> Cpu:
    features = ("avx", "avx2", "f16c", "fma")
    return Cpu(
        name=None,
        physical_cores=ASSUMED_CORES,
        usable_cores=ASSUMED_CORES,
        features=features,
        architecture="x86_64",
    )


def _host_memory(total_bytes: int) -> HostMemory:
    platform = _platform()
    return HostMemory(
        total_bytes=total_bytes, limit_bytes=None, available_bytes=total_bytes - system_reserve_bytes(total_bytes),
        bandwidth_bytes_per_s=platform.bandwidth_bytes_per_s, bandwidth_source=f"assumed: {platform.name}",
    )  # fmt: skip


def _host_note(field: str) -> ProbeNote:
    platform = _platform()
    speed = f"{platform.name} memory at {platform.bandwidth_bytes_per_s / 1e9:g} GB/s"
    why = f"{ASSUMED_CORES} cores with AVX2 and {speed} are assumed; the system takes an eighth of it, at most 4 GiB"
    return _note(field, why, "run `glmplan detect --json` on the real machine and pass that file to --on")


def _note(field: str, why: str, hint: str = "") -> ProbeNote:
    return ProbeNote(probe="catalog", field=field, why=why, hint=hint)
