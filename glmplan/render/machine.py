"""A machine for a person: one screen, memory as bars, and what could not be read."""

from typing import TYPE_CHECKING

from glmplan.machine import Gpu, HostMemory, Machine, ProbeNote
from glmplan.render.model import clean
from glmplan.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

_BAR_CELLS = 30
_LABEL_CELLS = 9


def show_machine(machine: Machine, console: "Console | None" = None) -> None:
    """Print `machine` to stdout, or to `console`."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=True)
    for label, line in _lines(machine):
        console.print(f"{label:{_LABEL_CELLS}}{clean(line)}", markup=False)
    if machine.notes:
        console.print()
        console.print("Not known, or to beware of", style="bold")
        for note in machine.notes:
            console.print(f"  {clean(_note(note))}", markup=False)


def _lines(machine: Machine) -> list[tuple[str, str]]:
    lines = [("system", _system(machine)), ("cpu", _cpu(machine))]
    lines += _memory(machine.memory)
    for gpu in machine.gpus:
        lines += _gpu(gpu)
    if machine.disk is not None:
        kind = f", {machine.disk.kind}" if machine.disk.kind else ""
        lines.append(
            (
                "disk",
                (
                    f"{_size(machine.disk.free_bytes)} free of {_size(machine.disk.total_bytes)}"
                    f" at {machine.disk.path}{kind}"
                ),
            )
        )
    for number, engine in enumerate(machine.engines):
        version = " ".join(part for part in (engine.version, f"build {engine.build}" if engine.build else None) if part)
        backends = f" [{', '.join(engine.backends)}]" if engine.backends else ""
        lines.append(
            ("" if number else "engines", f"{engine.kind} {version or 'of unknown version'}{backends}  {engine.path}")
        )
    if not machine.engines:
        lines.append(("engines", "none found"))
    for number, model in enumerate(machine.models):
        lines.append(
            (
                "" if number else "models",
                f"{model.quantization or 'unknown type'}, {format_bytes(model.bytes)}, {model.store}: {model.path}",
            )
        )
    if not machine.models:
        lines.append(("models", "no file of GLM-4.7-Flash found"))
    return lines


def _system(machine: Machine) -> str:
    system = machine.os
    parts = [
        system.version
        if system.version and system.system == "Linux"
        else f"{system.system} {system.version or ''}".strip()
    ]
    parts += [
        part
        for part in (system.machine_model, system.runs_under, "in a container" if system.container else None)
        if part
    ]
    return ", ".join(parts) + ("" if machine.source == "observed" else f"  ({machine.source})")


def _cpu(machine: Machine) -> str:
    cpu = machine.cpu
    kinds = " + ".join(f"{kind.physical_cores} {kind.name}" for kind in cpu.core_kinds)
    cores = f"{cpu.physical_cores or 'unknown number of'} cores" + (f" ({kinds})" if kinds else "")
    features = ", ".join(feature for feature in cpu.features if feature in _SHOWN)
    return f"{cpu.name or 'unknown processor'}, {cores}, {cpu.usable_cores} usable" + (
        f", {features}" if features else ""
    )


_SHOWN = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve", "sme"}
)


def _memory(memory: HostMemory) -> list[tuple[str, str]]:
    total = memory.total_bytes
    if memory.limit_bytes is not None:
        total = memory.limit_bytes if total is None else min(total, memory.limit_bytes)
    label = "unified" if memory.unified else "memory"
    lines = [
        (label, bar(memory.available_bytes, total) + f" {_size(memory.available_bytes)} available of {_size(total)}")
    ]
    details: list[str] = []
    if memory.limit_bytes is not None:
        details.append(f"limited by a control group; the machine has {_size(memory.total_bytes)}")
    if memory.bandwidth_bytes_per_s is not None:
        details.append(f"{memory.bandwidth_bytes_per_s / 1e9:.0f} GB/s ({memory.bandwidth_source})")
    if memory.swap_used_bytes:
        details.append(f"{_size(memory.swap_used_bytes)} of swap in use")
    return lines + [("", detail) for detail in details]


def _gpu(gpu: Gpu) -> list[tuple[str, str]]:
    lines = [(gpu.id, bar(gpu.memory_usable_bytes, gpu.memory_total_bytes)
              + f" {_size(gpu.memory_usable_bytes)} usable of {_size(gpu.memory_total_bytes)}")]  # fmt: skip
    facts = [gpu.name]
    if gpu.cores:
        facts.append(f"{gpu.cores} cores")
    if gpu.bandwidth_bytes_per_s is not None:
        facts.append(f"{gpu.bandwidth_bytes_per_s / 1e9:.0f} GB/s ({gpu.bandwidth_source})")
    if gpu.compute_capability:
        facts.append(f"compute {gpu.compute_capability}")
    if gpu.pcie is not None and gpu.pcie.generation and gpu.pcie.width:
        facts.append(f"PCIe {gpu.pcie.generation}.0 x{gpu.pcie.width}")
    if gpu.driver:
        facts.append(f"driver {gpu.driver}" + (f", CUDA {gpu.cuda_version}" if gpu.cuda_version else ""))
    if gpu.memory_limit_bytes is not None:
        facts.append(f"Metal's limit {_size(gpu.memory_limit_bytes)} ({gpu.memory_source})")
    lines.append(("", ", ".join(facts)))
    for process in gpu.processes[:3]:
        held = f" holds {_size(process.memory_bytes)}" if process.memory_bytes else " holds memory"
        lines.append(("", f"{process.name or 'a process'} ({process.pid}){held}"))
    return lines


def bar(free: int | None, total: int | None, cells: int = _BAR_CELLS) -> str:
    """A bar of `cells` characters: used memory filled, free memory empty; question marks when unknown."""
    if free is None or not total:
        return "[" + "?" * cells + "]"
    empty = min(cells, max(0, round(cells * free / total)))
    return "[" + "#" * (cells - empty) + "." * empty + "]"


def _size(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else format_bytes(n_bytes)


def _note(note: ProbeNote) -> str:
    return f"{note.field}: {note.why}" + (f" -> {note.hint}" if note.hint else "")
