"""NVIDIA GPUs: what NVML (or nvidia-smi) says, what CUDA will show, and what can be used of it."""

from collections.abc import Mapping
from typing import Any, Final

from glmplan.machine import Gpu, GpuProcess, PcieLink, Vendor
from glmplan.noun import noun
from glmplan.profiles.device_rows import Device, device_reported_as
from glmplan.profiles.host import Host
from glmplan.profiles.probes import nvml
from glmplan.profiles.probes.json_fields import Fields, fields, flag, integer, items, sequence, text
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.nvidia_smi import read_nvidia_smi
from glmplan.profiles.probes.nvidia_visible import Unit, visible_units
from glmplan.profiles.probes.pci import PciDisplay
from glmplan.units import format_bytes

_AGREE: Final = 0.05
_UNIFIED_NAMES: Final = ("GB10", "Thor", "Orin")
_FALLBACK: Final = frozenset({"LibraryNotFound", "Crashed", "FunctionNotFound"})
_REASONS: Final = {
    "DriverNotLoaded": ("the NVIDIA driver is not loaded", "sudo modprobe nvidia; under WSL2 run `wsl --shutdown`"),
    "LibRmVersionMismatch": (
        "the NVIDIA library and the loaded driver have different versions: the driver was updated",
        "reboot",
    ),
    "NoPermission": (
        "this user may not talk to the NVIDIA driver",
        "join the group that owns /dev/nvidia* (often `video` or `render`); start containers with --gpus all",
    ),
    "TimedOut": ("NVML gave no answer in time", "the driver hangs: look at `dmesg | grep -i nvrm`, then reboot"),
    "Crashed": ("the child that asks NVML crashed", "update the driver; under WSL2 update Windows' driver and WSL"),
    "LibraryNotFound": (
        "traces of an NVIDIA driver, but its library libnvidia-ml.so.1 could not be loaded",
        "install the driver's compute libraries; start containers with --gpus all",
    ),
}


@noun
class Pool:
    """Host memory that a unified-memory GPU shares."""

    total_bytes: int | None
    available_bytes: int | None


def probe_nvidia(host: Host, pool: Pool, displays: tuple[PciDisplay, ...], notes: Notes) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs a CUDA process sees, in its order.

    Args:
        host: the machine.
        pool: host memory, for devices that share it.
        displays: PCI display devices, to name a card that has no working driver.
        notes: takes what is not known.
    """
    answer = fields(host.call("nvml", lambda: nvml.collect(host.env)))
    status = text(answer.get("status")) or "not recorded"
    if status in _FALLBACK and (listed := read_nvidia_smi(host, notes)):
        notes.add("gpus", f"NVML: {status}; nvidia-smi was asked instead: no bus width, NVLink or MIG slices")
        answer, status = listed, "ok"
    if status != "ok":
        _explain(status, answer, displays, notes)
        return ()
    driver, cuda = text(answer.get("driver")), _cuda_version(integer(answer.get("cuda")))
    devices = items(answer.get("devices"))
    lost = (integer(answer.get("count")) or len(devices)) - len(devices)
    if lost > 0:
        why = f"{lost} of {lost + len(devices)} NVIDIA GPUs do not answer: fallen off the bus, or not permitted"
        notes.add("gpus.driver", why, "dmesg | grep -i xid; then reboot")
    units = visible_units(devices, host.env, notes)
    return tuple(_gpu(f"gpu{index}", unit, driver, cuda, pool, notes) for index, unit in enumerate(units))


def _explain(status: str, answer: Fields, displays: tuple[PciDisplay, ...], notes: Notes) -> None:
    cards = [display for display in displays if display.vendor_id == "10DE"]
    if status == "absent" and not cards:
        return
    if status == "absent":
        where = ", ".join(card.address for card in cards)
        notes.add("gpus.driver", f"an NVIDIA card is on the PCI bus ({where}), but no NVIDIA driver is installed",
                  "install the NVIDIA driver")  # fmt: skip
        return
    why, hint = _REASONS.get(status, (f"NVML answered {status}", "run nvidia-smi to see whether the driver works"))
    message = text(answer.get("message"))
    notes.add("gpus.driver", f"{why} ({message})" if message else why, hint)


def _cuda_version(number: int | None) -> str | None:
    """13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _gpu(name_id: str, unit: Unit, driver: str | None, cuda: str | None, pool: Pool, notes: Notes) -> Gpu:
    device = unit.device
    name = text(device.get("name")) or "NVIDIA GPU"
    if device.get("virtualization") == 2:
        notes.add(
            f"{name_id}.bandwidth_bytes_per_s", f"{name} is a virtual GPU: it shares the card's bandwidth with others"
        )
    memory = _memory(name_id, unit, name, pool, notes)
    row = device_reported_as(name, memory_total_bytes=integer(device.get("total")) or memory.total)
    bandwidth, source = _bandwidth(name_id, unit, row, notes)
    capability = sequence(device.get("compute_capability"))
    watts = integer(device.get("power_limit_mw"))
    generation, width = integer(device.get("pcie_generation")), integer(device.get("pcie_width"))
    return Gpu(
        id=name_id,
        name=f"{name} {text(unit.piece.get('name')) or 'MIG slice'}" if unit.piece else name,
        vendor=Vendor.NVIDIA,
        uuid=unit.uuid,
        memory_total_bytes=memory.total,
        memory_free_bytes=memory.free,
        memory_usable_bytes=memory.free,
        bandwidth_bytes_per_s=bandwidth,
        compute_capability=".".join(map(str, capability)) or None,
        driver=driver,
        pcie=PcieLink(generation=generation, width=width) if generation or width else None,
        unified=memory.unified,
        mig=unit.piece is not None,
        catalog_id=row.id if row else None,
        memory_reserved_bytes=memory.reserved,
        memory_used_bytes=memory.used,
        memory_source=memory.source,
        bandwidth_source=source,
        peak_flops_per_s=_peak(unit, row),
        bus_id=text(device.get("bus_id")),
        cuda_version=cuda,
        nvlink_links=integer(device.get("nvlink_links")),
        ecc=flag(device.get("ecc")),
        power_limit_watts=watts / 1000 if watts else None,
        display_active=flag(device.get("display_active")),
        processes=_processes(device),
    )


@noun
class _Memory:
    total: int | None
    free: int | None
    used: int | None = None
    reserved: int | None = None
    source: str | None = None
    unified: bool = False


def _memory(name_id: str, unit: Unit, name: str, pool: Pool, notes: Notes) -> _Memory:
    """Memory of the unit; for devices without memory of their own, host memory."""
    said = unit.piece or unit.device
    total, free = integer(said.get("total")), integer(said.get("free"))
    if total:  # a driver was seen that answered success with 0
        if free is None:
            notes.add(f"{name_id}.memory_free_bytes", "the driver does not say how much memory is free")
        return _Memory(total=total, free=free, used=integer(said.get("used")), reserved=integer(said.get("reserved")),
                       source=text(said.get("memory_source")))  # fmt: skip
    if unit.device.get("addressing_mode") == "ATS" or any(mark in name for mark in _UNIFIED_NAMES):
        notes.add(
            f"{name_id}.memory_total_bytes", f"{name} has no memory of its own: MemTotal and MemAvailable were taken"
        )
        return _Memory(total=pool.total_bytes, free=pool.available_bytes, source="meminfo", unified=True)
    notes.add(f"{name_id}.memory_total_bytes", f"the driver does not say how much memory {name} has",
              "run nvidia-smi; update the driver")  # fmt: skip
    return _Memory(total=None, free=None)


def _bandwidth(name_id: str, unit: Unit, row: Device | None, notes: Notes) -> tuple[int | None, str | None]:
    """2 x maximum memory clock x bus width / 8: NVML reports half the command data rate for HBM and GDDR alike."""
    clock, bits = integer(unit.device.get("max_memory_clock_mhz")), integer(unit.device.get("bus_bits"))
    measured = 2 * clock * 10**6 * bits // 8 if clock and bits else None
    listed = row.bandwidth_bytes_per_s if row else None
    if measured and listed and abs(measured - listed) > _AGREE * listed:
        notes.add(
            f"{name_id}.bandwidth_bytes_per_s",
            f"clock and bus width give {measured / 1e9:.0f} GB/s (taken), the catalog {listed / 1e9:.0f} GB/s",
        )
    whole, source = (measured, "nvml clock x bus width") if measured else (listed, "catalog" if listed else None)
    if whole is None:
        notes.add(f"{name_id}.bandwidth_bytes_per_s", "neither the driver nor the catalog knows the memory bandwidth",
                  "name a similar device with --on")  # fmt: skip
    if unit.piece is None or whole is None:
        return whole, source
    share = _share(unit, "total", integer(unit.device.get("total")))
    notes.add(
        f"{name_id}.bandwidth_bytes_per_s",
        f"a MIG slice is assumed to get {share:.0%} of the bandwidth, as of the memory",
    )
    return int(whole * share), f"{source}, share of memory"


def _peak(unit: Unit, row: Device | None) -> int | None:
    if row is None or row.peak_flops_per_s is None:
        return None
    share = 1.0
    if unit.piece is not None:
        by_cores = _share(unit, "multiprocessors", row.sm_count)
        share = by_cores if by_cores < 1 else _share(unit, "total", integer(unit.device.get("total")))
    return int(row.peak_flops_per_s * share)


def _share(unit: Unit, key: str, whole: int | None) -> float:
    part = integer((unit.piece or {}).get(key))
    return min(1.0, part / whole) if part and whole else 1.0


def _processes(device: Mapping[str, Any]) -> tuple[GpuProcess, ...]:
    return tuple(
        GpuProcess(pid=pid, name=text(entry.get("name")), memory_bytes=integer(entry.get("bytes")))
        for entry in items(device.get("processes"))
        if (pid := integer(entry.get("pid"))) is not None
    )


def held_by_others(gpu: Gpu) -> str:
    """Who holds memory of `gpu`, for a person; empty when nobody is known to."""
    known = sorted(gpu.processes, key=lambda process: process.memory_bytes or 0, reverse=True)
    return ", ".join(
        f"{entry.name or 'process'} ({entry.pid})"
        + (f" {format_bytes(entry.memory_bytes)}" if entry.memory_bytes else "")
        for entry in known
    )
