"""The processor on Linux: name, cores that exist, cores we may use, instruction sets an engine cares about."""

import math
from typing import Final

from glmplan.machine import CoreKind, Cpu
from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import digits
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.platform import Platform, cpu_list

# What ggml's CPU backends are compiled for (ggml/src/ggml-cpu/CMakeLists.txt), as /proc/cpuinfo spells it.
ENGINE_FEATURES: Final = frozenset({
    "sse3", "ssse3", "sse4_2", "avx", "f16c", "fma", "bmi2", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512cd",
    "avx512dq", "avx512vl", "avx512_vbmi2", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "sme", "rvv",
})  # fmt: skip


@noun
class _Processor:
    """One logical processor of /proc/cpuinfo."""

    number: int | None
    fields: dict[str, str]

    @property
    def core(self) -> tuple[str, str] | None:
        """(socket, core), the same for the threads of one core."""
        if "core id" not in self.fields:
            return None
        return self.fields.get("physical id", "0"), self.fields["core id"]


def probe_cpu(host: Host, facts: Platform, quota_cores: float | None, notes: Notes) -> Cpu:
    """The processor of a Linux machine."""
    processors = _processors(host.read("/proc/cpuinfo") or "")
    if not processors:
        notes.add("cpu", "/proc/cpuinfo could not be read: name, cores and features come from elsewhere or are unknown")
    by_number = {entry.number: entry for entry in processors if entry.number is not None}
    logical = facts.logical_cores or len(processors) or None
    kinds = _core_kinds(host, by_number, facts)
    described = _lscpu(host, processors)
    return Cpu(
        name=_name(processors, described, notes),
        physical_cores=_physical_cores(host, processors, described, logical, notes),
        usable_cores=_usable_cores(facts, quota_cores, logical, notes),
        features=_features(processors, notes),
        logical_cores=logical,
        performance_cores=kinds[0].physical_cores if len(kinds) > 1 else None,
        architecture=facts.architecture,
        core_kinds=kinds,
    )


def _processors(text: str) -> list[_Processor]:
    found: list[_Processor] = []
    for block in text.split("\n\n"):
        pairs = [line.partition(":") for line in block.splitlines() if ":" in line]
        fields = {key.strip(): value.strip() for key, _, value in pairs}
        if "processor" in fields:
            found.append(_Processor(number=digits(fields["processor"]), fields=fields))
    return found


def _name(processors: list[_Processor], described: dict[str, list[str]], notes: Notes) -> str | None:
    """`model name`, which ARM does not write; lscpu then decodes implementer and part."""
    for entry in processors:
        if name := entry.fields.get("model name"):
            return name
    names = [name for name in described.get("Model name", []) if name != "-"]
    if names:
        return " + ".join(dict.fromkeys(names))
    notes.add("cpu.name", "/proc/cpuinfo has no model name and lscpu gave none", "install util-linux for lscpu")
    return None


def _lscpu(host: Host, processors: list[_Processor]) -> dict[str, list[str]]:
    """What lscpu says, each key with all its values; asked only where /proc/cpuinfo names no model."""
    if any("model name" in entry.fields for entry in processors):
        return {}
    found: dict[str, list[str]] = {}
    for line in host.run(["lscpu"]).stdout.splitlines():
        key, _, value = line.partition(":")
        if value.strip():
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def _physical_cores(
    host: Host, processors: list[_Processor], described: dict[str, list[str]], logical: int | None, notes: Notes
) -> int | None:
    cores = {entry.core for entry in processors if entry.core is not None}
    if cores:
        return len(cores)
    for number in range(logical or 0):
        base = f"/sys/devices/system/cpu/cpu{number}/topology"
        core = host.read(f"{base}/core_id")
        if core is None:
            break
        cores.add(((host.read(f"{base}/physical_package_id") or "0").strip(), core.strip()))
    if cores:
        return len(cores)
    if described.get("Thread(s) per core") == ["1"]:
        return logical
    notes.add("cpu.physical_cores", "neither /proc/cpuinfo nor /sys says which processors share a core")
    return None


def _usable_cores(facts: Platform, quota_cores: float | None, logical: int | None, notes: Notes) -> int:
    """Cores this process may use: the smaller of affinity and quota, at least one.

    A quota of 1.5 cores is one usable core: a second thread would be stopped half of the time.
    """
    allowed = len(facts.affinity) if facts.affinity else logical
    if allowed is None:
        notes.add("cpu.usable_cores", "the number of processors could not be read: assumed 1")
        return 1
    if quota_cores is not None and quota_cores < allowed:
        notes.add(
            "cpu.usable_cores",
            f"the control group allows {quota_cores:g} of {allowed} processors",
            "raise the container's CPU limit (docker run --cpus, cpu.max)",
        )
        return max(1, math.floor(quota_cores))
    return allowed


def _features(processors: list[_Processor], notes: Notes) -> tuple[str, ...]:
    """Flags that every processor has (hybrid parts may differ), limited to those an engine is built for."""
    flag_sets: list[set[str]] = [
        set((entry.fields.get("flags") or entry.fields.get("Features") or "").lower().split()) for entry in processors
    ]
    shared = flag_sets[0].intersection(*flag_sets[1:]) if flag_sets else set[str]()
    if processors and not shared:
        notes.add("cpu.features", "/proc/cpuinfo lists no instruction sets", "try `glmplan detect --full`")
    return tuple(sorted(shared & ENGINE_FEATURES))


def _core_kinds(host: Host, by_number: dict[int, _Processor], facts: Platform) -> tuple[CoreKind, ...]:
    """Performance and efficiency cores; empty where all cores are alike."""
    fast = cpu_list(host.read("/sys/devices/cpu_core/cpus"))
    slow = cpu_list(host.read("/sys/devices/cpu_atom/cpus"))
    if fast and slow:
        return (
            CoreKind(name="Performance", physical_cores=_distinct(fast, by_number)),
            CoreKind(name="Efficiency", physical_cores=_distinct(slow, by_number)),
        )
    if facts.architecture in {"aarch64", "arm64"}:
        return _kinds_by_clock(host, facts.logical_cores or 0)
    return ()


def _distinct(numbers: tuple[int, ...], by_number: dict[int, _Processor]) -> int:
    """Physical cores among logical processors; each counts alone where its core is not known."""
    cores = {by_number[number].core or number if number in by_number else number for number in numbers}
    return len(cores)


def _kinds_by_clock(host: Host, logical: int) -> tuple[CoreKind, ...]:
    """ARM has no core type in /sys: cores within 15 % of the highest clock are called performance cores."""
    clocks = [
        digits(host.read(f"/sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq")) for number in range(logical)
    ]
    known = [clock for clock in clocks if clock]
    fast = sum(clock >= 0.85 * max(known) for clock in known)
    if not known or fast == len(known):
        return ()
    return (
        CoreKind(name="Performance", physical_cores=fast),
        CoreKind(name="Efficiency", physical_cores=len(known) - fast),
    )
