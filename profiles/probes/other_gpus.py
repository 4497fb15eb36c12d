"""AMD and Intel GPUs: found and named; usable only when an installed llama.cpp build lists them."""

import re
from typing import Final

from glmplan.engine import Engine, EngineKind
from glmplan.machine import Gpu, Vendor
from glmplan.profiles.host import Host
from glmplan.profiles.probes.engine import ListedDevice, list_devices
from glmplan.profiles.probes.json_fields import digits
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.pci import PciDisplay
from glmplan.units import MIB

_VENDORS: Final = {"1002": Vendor.AMD, "8086": Vendor.INTEL}
_WORDS: Final = {Vendor.AMD: ("amd", "radeon"), Vendor.INTEL: ("intel", "arc(tm)")}
_BACKENDS: Final = frozenset({"vulkan", "hip", "sycl"})
_SERIES: Final = re.compile(r"^GPU\[(\d{1,3})\]\s*:\s*Card [Ss]eries:\s*(.+?)\s*$", re.MULTILINE)


def probe_other_gpus(
    host: Host, displays: tuple[PciDisplay, ...], engines: tuple[Engine, ...], first: int, notes: Notes
) -> tuple[Gpu, ...]:
    """AMD and Intel GPUs, numbered from `first` on.

    `memory_usable_bytes` is what an installed llama.cpp build reports as free; None puts the GPU outside the plan.
    """
    cards = [card for card in displays if card.vendor_id in _VENDORS]
    if not cards:
        return ()
    listed = _listed(host, engines)
    names = _rocm_names(host) if any(card.vendor_id == "1002" for card in cards) else []
    found: list[Gpu] = []
    for card in cards:
        vendor = _VENDORS[card.vendor_id]
        device = next((entry for entry in listed if any(word in entry.name.lower() for word in _WORDS[vendor])), None)
        if device is not None:
            listed.remove(device)
        name = (
            device.name
            if device
            else (
                names.pop(0)
                if vendor is Vendor.AMD and names
                else f"{vendor.value.upper()} GPU {card.vendor_id}:{card.device_id}"
            )
        )
        found.append(_gpu(host, f"gpu{first + len(found)}", name, card, device))
        _say(found[-1], device, notes)
    return tuple(found)


def _listed(host: Host, engines: tuple[Engine, ...]) -> list[ListedDevice]:
    for engine in engines:
        if engine.kind is EngineKind.LLAMA_SERVER and _BACKENDS & set(engine.backends):
            return [device for device in list_devices(host, engine) if device.backend in _BACKENDS]
    return []


def _rocm_names(host: Host) -> list[str]:
    return [match[2] for match in _SERIES.finditer(host.run(["rocm-smi", "--showproductname"]).stdout)]


def _gpu(host: Host, name_id: str, name: str, card: PciDisplay, device: ListedDevice | None) -> Gpu:
    base = f"/sys/bus/pci/devices/{card.address}"
    total = digits(host.read(f"{base}/mem_info_vram_total"))
    used = digits(host.read(f"{base}/mem_info_vram_used"))
    listed_free = device.free_mib * MIB if device else None
    return Gpu(
        id=name_id, name=name, vendor=_VENDORS[card.vendor_id], uuid=None,
        memory_total_bytes=device.total_mib * MIB if device else total,
        memory_free_bytes=listed_free if device else total - used if total is not None and used is not None else None,
        memory_usable_bytes=listed_free, bandwidth_bytes_per_s=None, bus_id=card.address, memory_used_bytes=used,
        memory_source=f"llama-server --list-devices ({device.backend})" if device else "amdgpu" if total else None,
    )  # fmt: skip


def _say(gpu: Gpu, device: ListedDevice | None, notes: Notes) -> None:
    if device is not None:
        notes.add(f"{gpu.id}.bandwidth_bytes_per_s",
                  f"{gpu.name} is usable through llama.cpp's {device.backend} build; bandwidth unknown")  # fmt: skip
        return
    notes.add(
        f"{gpu.id}.memory_usable_bytes",
        f"{gpu.name} is found, but outside the plan: no installed llama.cpp build lists it",
        "install a Vulkan or ROCm build of llama.cpp; plans then include it",
    )
