"""Runs every probe, side by side, and assembles the machine."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from glmplan.engine import Engine
from glmplan.machine import Cpu, EngineFound, Gpu, HostMemory, Machine, ModelFile, OperatingSystem
from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.apple import (
    Mac,
    probe_apple_gpu,
    probe_mac_cpu,
    probe_mac_memory,
    probe_mac_system,
    read_mac,
)
from glmplan.profiles.probes.apple_memory import AppleMemory
from glmplan.profiles.probes.bandwidth import with_bandwidth
from glmplan.profiles.probes.cgroup import GroupLimits, read_limits
from glmplan.profiles.probes.cpu import probe_cpu
from glmplan.profiles.probes.disk import probe_disk
from glmplan.profiles.probes.engine import find_engines
from glmplan.profiles.probes.engine_places import read_places
from glmplan.profiles.probes.engines_here import list_engines
from glmplan.profiles.probes.memory import probe_memory, read_meminfo
from glmplan.profiles.probes.models_here import find_models
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.nvidia import Pool, probe_nvidia
from glmplan.profiles.probes.other_gpus import probe_other_gpus
from glmplan.profiles.probes.pci import PciDisplay, read_displays
from glmplan.profiles.probes.platform import Platform, probe_system, read_platform
from glmplan.profiles.probing import Probing
from glmplan.profiles.tape import TapeHost

UNKNOWN_MEMORY: Final = HostMemory(total_bytes=None, limit_bytes=None, available_bytes=None, bandwidth_bytes_per_s=None)
_ORDER: Final = ("system", "cpu", "memory", "nvidia", "apple", "other_gpus", "engines", "models", "disk", "tape")
_NO_GPUS: Final[tuple[Gpu, ...]] = ()
_NO_MODELS: Final[tuple[ModelFile, ...]] = ()
_NO_DISPLAYS: Final[tuple[PciDisplay, ...]] = ()


@noun
class _Hardware:
    os: OperatingSystem
    cpu: Cpu
    memory: HostMemory
    gpus: tuple[Gpu, ...]


@noun
class _Tools:
    launchable: tuple[Engine, ...] = ()
    listed: tuple[EngineFound, ...] = ()


def detect(host: Host) -> Machine:
    """Everything observed about `host`; never raises for what is absent.

    Args:
        host: `LocalHost()` for this machine, a `TapeHost` for a recorded one.
    """
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
        probing = Probing(pool)
        facts = read_platform(host)
        tools = probing.start("engines", lambda notes: _read_tools(host, notes), _Tools())
        models = probing.start("models", lambda _: find_models(host), _NO_MODELS)
        disk = probing.start("disk", lambda notes: probe_disk(host, notes), None)
        found = _mac(host, facts, probing) if facts.system == "Darwin" else _linux(host, facts, probing, tools)
        machine = Machine(
            os=found.os,
            cpu=found.cpu,
            memory=found.memory,
            gpus=found.gpus,
            disk=disk.result(),
            engines=tools.result().listed,
            models=models.result(),
        )
    if isinstance(host, TapeHost):
        _note_tape(host, probing.notes("tape"))
        machine = replace(machine, source=f"tape: {host.name}")
    return replace(machine, notes=probing.taken(_ORDER))


def _read_tools(host: Host, notes: Notes) -> _Tools:
    places = read_places(host)
    launchable = find_engines(host, places)
    return _Tools(launchable=launchable, listed=list_engines(host, places, launchable, notes))


def _linux(host: Host, facts: Platform, probing: Probing, tools: "Future[_Tools]") -> _Hardware:
    """Linux, and what little can be said of systems that are not supported."""
    meminfo = read_meminfo(host)
    total = meminfo.get("MemTotal")
    groups = probing.start("memory", lambda _: read_limits(host, memory_total_bytes=total), GroupLimits())
    on_bus = probing.start("other_gpus", lambda _: read_displays(host), _NO_DISPLAYS)
    system = probing.start("system", lambda notes: probe_system(host, facts, notes), _unknown_system(facts))
    limits, displays = groups.result(), on_bus.result()
    plain = probing.start("memory", lambda notes: probe_memory(host, meminfo, limits, notes), UNKNOWN_MEMORY)
    cpu = probing.start("cpu", lambda notes: probe_cpu(host, facts, limits.cores, notes), _unknown_cpu(facts))
    memory = plain.result()
    nvidia = probing.start("nvidia", lambda notes: probe_nvidia(host, _pool(memory), displays, notes), _NO_GPUS)
    timed = probing.start(
        "memory",
        lambda notes: with_bandwidth(host, memory, cpu.result(), administrator=facts.administrator, notes=notes),
        memory,
    )
    gpus = nvidia.result()
    others = probing.start(
        "other_gpus",
        lambda notes: probe_other_gpus(host, displays, tools.result().launchable, len(gpus), notes),
        _NO_GPUS,
    )
    gpus = (*gpus, *others.result())
    return _Hardware(os=system.result(), cpu=cpu.result(), memory=_shared(timed.result(), gpus), gpus=gpus)


def _mac(host: Host, facts: Platform, probing: Probing) -> _Hardware:
    mac = probing.start("cpu", lambda notes: read_mac(host, notes), Mac(values={})).result()
    nothing = (UNKNOWN_MEMORY, AppleMemory(pessimistic_bytes=None, optimistic_bytes=None))
    told = probing.start("system", lambda notes: probe_mac_system(host, mac, facts, notes), _unknown_system(facts))
    read = probing.start("memory", lambda notes: probe_mac_memory(host, mac, notes), nothing)
    cpu = probing.start("cpu", lambda notes: probe_mac_cpu(mac, facts, notes), _unknown_cpu(facts)).result()
    system, (memory, now) = told.result(), read.result()
    gpus = probing.start(
        "apple", lambda notes: probe_apple_gpu(host, mac, now, system.version, notes), _NO_GPUS
    ).result()
    if memory.bandwidth_bytes_per_s is None and not memory.unified:
        memory = probing.start(
            "memory", lambda notes: with_bandwidth(host, memory, cpu, administrator=False, notes=notes), memory
        ).result()
    return _Hardware(os=system, cpu=cpu, memory=_shared(memory, gpus), gpus=gpus)


def _unknown_system(facts: Platform) -> OperatingSystem:
    return OperatingSystem(system=facts.system, version=facts.version, container=False)


def _unknown_cpu(facts: Platform) -> Cpu:
    return Cpu(name=None, physical_cores=None, usable_cores=facts.logical_cores or 1)


def _pool(memory: HostMemory) -> Pool:
    limits = [size for size in (memory.total_bytes, memory.limit_bytes) if size is not None]
    return Pool(total_bytes=min(limits, default=None), available_bytes=memory.available_bytes)


def _shared(memory: HostMemory, gpus: tuple[Gpu, ...]) -> HostMemory:
    """Host memory that a GPU shares has that GPU's bandwidth."""
    shared = next((gpu for gpu in gpus if gpu.unified), None)
    if shared is None:
        return memory
    if shared.bandwidth_bytes_per_s is None:
        return replace(memory, unified=True)
    return replace(
        memory,
        unified=True,
        bandwidth_bytes_per_s=shared.bandwidth_bytes_per_s,
        bandwidth_source=shared.bandwidth_source,
    )


def _note_tape(host: TapeHost, notes: Notes) -> None:
    """What a tape could not answer, so that nothing is silently absent."""
    for name in sorted(set(host.damaged)):
        notes.add("*", f"{name} is missing or cannot be read")
    for question in sorted(set(host.missed)):
        notes.add("*", f"never recorded: {question}", "record the machine again with this version of glmplan")
