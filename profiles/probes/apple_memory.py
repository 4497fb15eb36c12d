"""How much memory a Mac could give now, read two ways.

Pessimistic: free + speculative + purgeable + file-backed pages; nothing has to be compressed or swapped for them.
Optimistic: free + speculative + inactive pages, as psutil counts; inactive pages hold other programs' memory, which
must be compressed first.
"""

import re
from collections.abc import Mapping
from typing import Final

from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import digits
from glmplan.profiles.probes.notes import Notes
from glmplan.units import MIB

_HEADER: Final = re.compile(r"page size of (\d{1,9}) bytes")
_SWAP: Final = re.compile(r"total = ([0-9.]+)M\s+used = ([0-9.]+)M")
_PRESSURE: Final = {2: "warning", 4: "critical"}


@noun
class AppleMemory:
    """Two readings of free memory, and swap; bytes."""

    pessimistic_bytes: int | None
    optimistic_bytes: int | None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None


def read_apple_memory(host: Host, sysctl: Mapping[str, str], notes: Notes) -> AppleMemory:
    """Both readings from `vm_stat`, or the pessimistic one from `sysctl` counters."""
    swap_total, swap_used = _swap(sysctl.get("vm.swapusage", ""))
    pressure = _PRESSURE.get(digits(sysctl.get("kern.memorystatus_vm_pressure_level")) or 0)
    if pressure:
        notes.add("memory.available_bytes", f"macOS reports memory pressure: {pressure}", "close other programs")
    pages, page_bytes = _vm_stat(host)
    readings = _from_vm_stat(pages, page_bytes, notes) if pages else _from_sysctl(sysctl, notes)
    return AppleMemory(pessimistic_bytes=readings[0], optimistic_bytes=readings[1], swap_total_bytes=swap_total,
                       swap_used_bytes=swap_used)  # fmt: skip


def _vm_stat(host: Host) -> tuple[dict[str, int], int]:
    """Counts by name, and bytes per page; unknown lines are kept and never read."""
    text = host.run(["/usr/bin/vm_stat"]).stdout
    header = _HEADER.search(text)
    counts: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        count = digits(value.strip().removesuffix("."))
        if count is not None:
            counts[name.strip().strip('"')] = count
    return (counts, int(header[1])) if header and "Pages free" in counts else ({}, 0)


def _from_vm_stat(pages: Mapping[str, int], page_bytes: int, notes: Notes) -> tuple[int, int | None]:
    sure = pages["Pages free"] + pages.get("Pages speculative", 0)
    if "File-backed pages" not in pages:
        notes.add("memory.available_bytes", "vm_stat lists no file-backed pages: they count as in use")
    pessimistic = sure + pages.get("Pages purgeable", 0) + pages.get("File-backed pages", 0)
    inactive = pages.get("Pages inactive")
    optimistic = None if inactive is None else (sure + inactive) * page_bytes
    notes.add(
        "memory.available_bytes",
        "the pessimistic of two readings is used: free + speculative + purgeable + file-backed pages",
    )
    return pessimistic * page_bytes, optimistic


def _from_sysctl(sysctl: Mapping[str, str], notes: Notes) -> tuple[int | None, None]:
    page_bytes = digits(sysctl.get("hw.pagesize"))
    free = digits(sysctl.get("vm.page_free_count"))
    if page_bytes is None or free is None:
        notes.add("memory.available_bytes", "neither vm_stat nor sysctl says how many pages are free")
        return None, None
    names = ("vm.page_speculative_count", "vm.page_purgeable_count", "vm.page_pageable_external_count")
    others = sum(digits(sysctl.get(name)) or 0 for name in names)
    notes.add("memory.available_bytes", "vm_stat gave nothing: the page counters of sysctl were read instead")
    return (free + others) * page_bytes, None


def _swap(written: str) -> tuple[int | None, int | None]:
    """`total = 2048.00M  used = 1024.00M  free = 1024.00M  (encrypted)`."""
    found = _SWAP.search(written)
    if found is None:
        return None, None
    try:
        return round(float(found[1]) * MIB), round(float(found[2]) * MIB)
    except ValueError:
        return None, None
