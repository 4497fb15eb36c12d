"""Macs: chip, cores, unified memory, and how much of it Metal lets one process use."""

import json
from collections.abc import Mapping
from typing import Any, Final

from glmplan.machine import CoreKind, Cpu, Gpu, HostMemory, OperatingSystem, Vendor
from glmplan.noun import noun
from glmplan.profiles.device_rows import device_reported_as
from glmplan.profiles.host import Host
from glmplan.profiles.probes import metal
from glmplan.profiles.probes.apple_memory import AppleMemory, read_apple_memory
from glmplan.profiles.probes.json_fields import digits, fields, integer, items, text
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.platform import Platform
from glmplan.units import MIB, format_bytes

SYSCTL: Final = "/usr/sbin/sysctl"
SYSCTL_NAMES: Final = (
    "hw.memsize", "hw.model", "hw.ncpu", "hw.physicalcpu", "hw.logicalcpu", "hw.nperflevels",
    "hw.perflevel0.name", "hw.perflevel0.physicalcpu", "hw.perflevel1.name", "hw.perflevel1.physicalcpu",
    "hw.perflevel2.name", "hw.perflevel2.physicalcpu", "hw.pagesize", "hw.optional.arm.FEAT_DotProd",
    "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16", "hw.optional.arm.FEAT_SME",
    "machdep.cpu.brand_string", "kern.osproductversion", "iogpu.wired_limit_mb", "sysctl.proc_translated",
    "kern.memorystatus_vm_pressure_level", "vm.swapusage", "vm.page_free_count", "vm.page_speculative_count",
    "vm.page_purgeable_count", "vm.page_pageable_external_count",
)  # fmt: skip
DISPLAYS: Final = ("/usr/sbin/system_profiler", "SPDisplaysDataType", "-json")
# A change of this file is a change of the system: the only thing that could change the GPU's core count.
SYSTEM_VERSION: Final = "/System/Library/CoreServices/SystemVersion.plist"
_FEATURES: Final = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_SME": "sme"}


@noun
class Mac:
    """Everything one `sysctl` call said."""

    values: Mapping[str, str]

    def number(self, name: str) -> int | None:
        """A value that is a whole number."""
        return digits(self.values.get(name))

    @property
    def chip(self) -> str | None:
        """`Apple M2 Max`, `Apple M1 (Virtual)` or an Intel name."""
        return self.values.get("machdep.cpu.brand_string") or None

    @property
    def apple_silicon(self) -> bool:
        """True on Apple's own chips, also under Rosetta."""
        return (self.chip or "").startswith("Apple") or self.number("sysctl.proc_translated") == 1

    @property
    def virtual(self) -> bool:
        """True in Apple's virtual machines."""
        return "(Virtual)" in (self.chip or "") or self.values.get("hw.model", "").startswith("VirtualMac")


def read_mac(host: Host, notes: Notes) -> Mac:
    """One `sysctl` call with every name: known ones are printed, unknown ones complained about."""
    done = host.run([SYSCTL, *SYSCTL_NAMES])
    pairs = [line.partition(": ") for line in done.stdout.splitlines()]
    values = {name.strip(): value.strip() for name, mark, value in pairs if mark}
    if not values:
        notes.add("cpu", f"sysctl told nothing: {done.why or done.stderr.strip() or 'no output'}")
    return Mac(values=values)


def probe_mac_system(host: Host, mac: Mac, facts: Platform, notes: Notes) -> OperatingSystem:
    """macOS, its version, and whether the machine or the process is not what it seems."""
    version = mac.values.get("kern.osproductversion") or facts.version
    if not version:
        version = host.run(["/usr/bin/sw_vers", "-productVersion"]).stdout.strip() or None
    runs_under = None
    if mac.number("sysctl.proc_translated") == 1:
        runs_under = "rosetta"
        notes.add("os", "this Python runs under Rosetta: engines installed for it are x86 and cannot use the GPU",
                  "install an arm64 Python (uv python install, or the python.org installer)")  # fmt: skip
    elif mac.virtual:
        runs_under = "virtual-mac"
        notes.add("os", "this is a virtual Mac: its GPU is shared and has no published figures")
    return OperatingSystem(system="macOS", version=version, container=False, runs_under=runs_under,
                           machine_model=mac.values.get("hw.model"))  # fmt: skip


def probe_mac_cpu(mac: Mac, facts: Platform, notes: Notes) -> Cpu:
    """Cores by the kinds macOS names; `hw.perflevel1` is not always the slow kind, so names are kept."""
    kinds = tuple(
        CoreKind(name=mac.values.get(f"hw.perflevel{level}.name") or ("Performance", "Efficiency", "other")[level],
                 physical_cores=count)
        for level in range(3) if (count := mac.number(f"hw.perflevel{level}.physicalcpu"))
    )  # fmt: skip
    physical = mac.number("hw.physicalcpu") or sum(kind.physical_cores for kind in kinds) or mac.number("hw.ncpu")
    if physical is None:
        notes.add("cpu.physical_cores", "sysctl gave neither hw.physicalcpu nor hw.ncpu")
    fast = sum(kind.physical_cores for kind in kinds if kind.name != "Efficiency")
    spelled = (_FEATURES[name] for name in _FEATURES if mac.number(f"hw.optional.arm.{name}") == 1)
    return Cpu(
        name=mac.chip,
        physical_cores=physical,
        usable_cores=physical or facts.logical_cores or 1,
        features=tuple(sorted({"asimd", *spelled})) if mac.apple_silicon else (),
        logical_cores=mac.number("hw.logicalcpu") or mac.number("hw.ncpu") or facts.logical_cores,
        performance_cores=fast if len(kinds) > 1 else None,
        architecture="arm64" if mac.apple_silicon else facts.architecture,
        core_kinds=kinds if len(kinds) > 1 else (),
    )


def probe_mac_memory(host: Host, mac: Mac, notes: Notes) -> tuple[HostMemory, AppleMemory]:
    """Unified memory: what exists and two readings of what is free, of which the pessimistic one is used."""
    now = read_apple_memory(host, mac.values, notes)
    total = mac.number("hw.memsize")
    if total is None:
        notes.add("memory.total_bytes", "sysctl gave no hw.memsize")
    row = device_reported_as(mac.chip, memory_total_bytes=total) if mac.chip else None
    memory = HostMemory(
        total_bytes=total, limit_bytes=None, available_bytes=now.pessimistic_bytes,
        bandwidth_bytes_per_s=row.bandwidth_bytes_per_s if row else None,
        bandwidth_source="catalog" if row and row.bandwidth_bytes_per_s else None, unified=mac.apple_silicon,
        swap_total_bytes=now.swap_total_bytes, swap_used_bytes=now.swap_used_bytes,
        available_optimistic_bytes=now.optimistic_bytes,
    )  # fmt: skip
    return memory, now


def probe_apple_gpu(host: Host, mac: Mac, now: AppleMemory, version: str | None, notes: Notes) -> tuple[Gpu, ...]:
    """The one GPU of an Apple chip; usable = min(Metal's limit, the pessimistic reading of free memory)."""
    display = _display(host, notes)
    if not mac.apple_silicon:
        model = text(display.get("sppci_model")) or "its GPU"
        notes.add("gpus", f"this is an Intel Mac: {model} is found, but not planned for",
                  "plan for the CPU, or for another machine with --on")  # fmt: skip
        return ()
    total = mac.number("hw.memsize")
    cores = digits(text(display.get("sppci_cores")))
    if cores is None and display:
        notes.add("gpu0.cores", "system_profiler did not say how many cores the GPU has")
    limit, source = metal.working_set(host, mac.values, version, notes)
    known = [size for size in (limit, now.pessimistic_bytes) if size is not None]
    name = mac.chip or text(display.get("sppci_model")) or "Apple GPU"
    row = device_reported_as(name, memory_total_bytes=total, gpu_cores=cores)
    if row is None:
        notes.add("gpu0.bandwidth_bytes_per_s", f"{name} is not in the catalog: bandwidth and peak rate are unknown")
    peak = row.peak_flops_per_s if row else None
    if row and peak and cores and row.gpu_cores and cores < max(row.gpu_cores):
        peak = peak * cores // max(row.gpu_cores)  # a row's rate is that of its largest variant
    if limit is not None and now.pessimistic_bytes is not None and now.pessimistic_bytes < limit:
        notes.add("gpu0.memory_usable_bytes",
                  f"Metal allows {format_bytes(limit)}, but only {format_bytes(now.pessimistic_bytes)} are free now",
                  "close other programs, then run again")  # fmt: skip
    return (
        Gpu(
            id="gpu0", name=name, vendor=Vendor.APPLE, uuid=None, memory_total_bytes=total,
            memory_free_bytes=now.pessimistic_bytes, memory_usable_bytes=min(known, default=None),
            bandwidth_bytes_per_s=row.bandwidth_bytes_per_s if row else None, unified=True, cores=cores,
            catalog_id=row.id if row else None, memory_limit_bytes=limit, memory_source=source,
            bandwidth_source="catalog" if row and row.bandwidth_bytes_per_s else None, peak_flops_per_s=peak,
        ),
    )  # fmt: skip


def _display(host: Host, notes: Notes) -> Mapping[str, Any]:
    """The display device with GPU cores; values may be localised, keys are not, and the count is a string."""
    done = host.run(DISPLAYS, timeout_s=3.5, remember_for=SYSTEM_VERSION)
    if not done.ok:
        notes.add("gpu0.cores", f"system_profiler: {done.why or done.stderr.strip() or 'failed'}")
        return {}
    try:
        devices = items(fields(json.loads(done.stdout)).get("SPDisplaysDataType"))
    except ValueError:
        notes.add("gpu0.cores", "system_profiler did not print JSON")
        return {}
    return max(devices, key=lambda device: "sppci_cores" in device, default=fields(None))


def raise_limit_command(gpu: Gpu, *, leave_bytes: int) -> str | None:
    """The `sysctl` line that would let Metal use all but `leave_bytes`; printed, never run."""
    total = integer(gpu.memory_total_bytes)
    return None if total is None else f"sudo sysctl iogpu.wired_limit_mb={max(0, total - leave_bytes) // MIB}"
