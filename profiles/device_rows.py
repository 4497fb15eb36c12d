"""The device catalog: every shipped row, found by the name a driver reports or a person types."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from glmplan.machine import Vendor
from glmplan.noun import noun
from glmplan.profiles.store import shipped
from glmplan.units import GIB, MIB

GPU_FILES: Final = (
    "apple.yaml", "nvidia-geforce-20-30.yaml", "nvidia-geforce-40-50.yaml", "nvidia-laptop.yaml",
    "nvidia-workstation.yaml", "nvidia-datacenter.yaml", "nvidia-unified.yaml",
)  # fmt: skip
HOST_FILE: Final = "cpu.yaml"
# What may follow an alias in a reported name: a size, or the profile of a virtual or MIG slice.
_TAIL: Final = re.compile(r"(-\S+|( \d+GB)?( MIG \S+)?)?")


@noun
class Device:
    """One row: a GPU as sold, with every memory size it is sold with. `sources` are public documents."""

    id: str
    name: str
    vendor: Vendor
    kind: str
    aliases: tuple[str, ...]
    memory_options_bytes: tuple[int, ...]
    bandwidth_bytes_per_s: int | None
    peak_flops_per_s: int | None
    sources: tuple[str, ...]
    confidence: str
    compute_capability: str | None = None
    gpu_cores: tuple[int, ...] = ()
    cpu_cores: str | None = None
    sm_count: int | None = None
    reported_total_bytes: int | None = None
    max_memory_clock_mhz: int | None = None
    bus_bits: int | None = None
    note: str | None = None

    @property
    def unified(self) -> bool:
        """True when the GPU shares the host's memory."""
        return self.kind.endswith("_unified")


@noun
class HostPlatform:
    """One kind of host memory: channels x 8 bytes x transfers per second."""

    id: str
    name: str
    channels: int
    mega_transfers_per_s: int
    bandwidth_bytes_per_s: int
    examples: str
    sources: tuple[str, ...]
    confidence: str


@cache
def all_devices() -> tuple[Device, ...]:
    """Every GPU row, in file order."""
    return tuple(_device(document, row) for document in map(_document, GPU_FILES) for row in document["devices"])


@cache
def all_host_platforms() -> tuple[HostPlatform, ...]:
    """Every host memory platform."""
    document = _document(HOST_FILE)
    return tuple(
        HostPlatform(
            id=row["id"], name=row["name"], channels=row["channels"], mega_transfers_per_s=row["mt_s"],
            bandwidth_bytes_per_s=round(row["bandwidth_gb_s"] * 1e9), examples=row["examples"],
            sources=_sources(document, row), confidence=row["confidence"],
        )
        for row in document["devices"]
    )  # fmt: skip


def _document(name: str) -> Mapping[str, Any]:
    return shipped("devices", name)


def _sources(document: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(document["sources"][key] for key in row["sources"])


def _device(document: Mapping[str, Any], row: Mapping[str, Any]) -> Device:
    bandwidth, tflops, reported = row["bandwidth_gb_s"], row["fp16_tflops"], row.get("nvml_total_mib")
    return Device(
        id=row["id"],
        name=row["name"],
        vendor=Vendor(document["vendor"]),
        kind=document["kind"],
        aliases=tuple(row["aliases"]),
        memory_options_bytes=tuple(round(size * GIB) for size in row["memory_gib"]),
        bandwidth_bytes_per_s=None if bandwidth is None else round(bandwidth * 1e9),
        peak_flops_per_s=None if tflops is None else round(tflops * 1e12),
        sources=_sources(document, row),
        confidence=row["confidence"],
        compute_capability=row.get("compute_capability"),
        gpu_cores=tuple(row.get("gpu_cores") or ()),
        cpu_cores=row.get("cpu_cores"),
        sm_count=row.get("sm_count"),
        reported_total_bytes=None if reported is None else reported * MIB,
        max_memory_clock_mhz=row.get("nvml_max_mem_clock_mhz"),
        bus_bits=row.get("bus_bits"),
        note=row.get("note"),
    )


def device_reported_as(
    name: str, *, memory_total_bytes: int | None = None, gpu_cores: int | None = None
) -> Device | None:
    """The row whose alias is the longest that `name` (as a driver reports it) begins with.

    Args:
        name: what NVML, nvidia-smi or sysctl printed.
        memory_total_bytes: chooses between rows that share an alias.
        gpu_cores: the same, for Apple's variants.
    """
    found: list[tuple[int, Device]] = []
    for device in all_devices():
        lengths = [len(alias) for alias in device.aliases if _is_named(name, alias)]
        if lengths:
            found.append((max(lengths), device))
    longest = max((length for length, _ in found), default=0)
    rows = [device for length, device in found if length == longest]
    return min(rows, key=lambda row: _distance(row, memory_total_bytes, gpu_cores), default=None)


def _is_named(name: str, alias: str) -> bool:
    folded, start = name.casefold(), alias.casefold()
    return folded.startswith(start) and _TAIL.fullmatch(name[len(alias) :]) is not None


def _distance(row: Device, memory_total_bytes: int | None, gpu_cores: int | None) -> tuple[int, int]:
    """How far a row is from what was seen: cores first, then memory."""
    cores = min((abs(count - gpu_cores) for count in row.gpu_cores), default=0) if gpu_cores else 0
    if memory_total_bytes is None:
        return cores, 0
    return cores, min(abs(size - memory_total_bytes) for size in row.memory_options_bytes)


def slug(text: str) -> str:
    """Lower case with single dashes: how a person may type a name."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")


@cache
def slugs(device: Device) -> frozenset[str]:
    """Every spelling of a row's id, name and aliases, with and without the vendor's prefixes."""
    spoken = {slug(device.id), slug(device.name), slug(device.name.partition("(")[0]), *map(slug, device.aliases)}
    shorter = {re.sub(r"^(nvidia-|apple-)?(geforce-|tesla-|quadro-)?", "", spelling) for spelling in spoken}
    endless = {spelling.removesuffix("-ada-generation") + "-ada" for spelling in spoken | shorter
               if spelling.endswith("-ada-generation")}  # fmt: skip
    numbers = {re.sub(r"^rtx-(?=\d{4})", "", spelling) for spelling in shorter}
    every = spoken | shorter | endless | numbers
    return frozenset((every | {spelling.replace("-", "") for spelling in every}) - {""})


def devices_named(typed: str, devices: Iterable[Device] | None = None) -> tuple[Device, ...]:
    """Rows a person may mean by `typed`: equal spelling first, else names that continue it at a word."""
    wanted, rows = slug(typed), tuple(devices if devices is not None else all_devices())
    exact = tuple(row for row in rows if wanted in slugs(row))
    if exact:
        return exact
    return tuple(row for row in rows if any(spelling.startswith(f"{wanted}-") for spelling in slugs(row)))
