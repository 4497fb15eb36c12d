"""Memory that is not there: held by others, limited, swapped out, or too little disk for the file."""

from collections.abc import Iterator
from typing import Final

from glmplan.diagnosis import Checkup, Finding, Harm
from glmplan.machine import Gpu, GpuProcess, Vendor
from glmplan.units import GIB, MIB, format_bytes

HELD_BYTES: Final = 1 * GIB  # an idle desktop holds 0.2-1.2 GiB (nvidia-smi captures)
SWAP_BYTES: Final = 256 * MIB
PROMPT_CACHE_BYTES: Final = 8192 * MIB  # llama-server's default --cache-ram
SYSTEM_BYTES: Final = 4 * GIB  # what macOS needs beside a model
_DRIVER_FIELD: Final = "gpus.driver"


def gpu_findings(checkup: Checkup) -> Iterator[Finding]:
    """Drivers that do not answer, and GPU memory that other processes hold."""
    for note in checkup.machine.notes:
        if note.field == _DRIVER_FIELD:
            yield Finding(code="nvidia-driver", harm=Harm.DOES_NOT_RUN, what=note.why, fix=note.hint)
    for gpu in checkup.machine.gpus:
        yield from _held(gpu)


def _held(gpu: Gpu) -> Iterator[Finding]:
    if gpu.unified or gpu.vendor is Vendor.APPLE:
        return
    known = sum(process.memory_bytes or 0 for process in gpu.processes)
    held = max(gpu.memory_used_bytes or 0, known)
    if held < HELD_BYTES:
        return
    holders = sorted(gpu.processes, key=lambda process: process.memory_bytes or 0, reverse=True)
    who = ", ".join(_named(process) for process in holders[:3]) or "processes that the driver does not name"
    yield Finding(
        code="gpu-memory-held",
        harm=Harm.OUT_OF_MEMORY,
        what=f"{format_bytes(held)} of {gpu.name} ({gpu.id}) are held by {who}",
        fix=f"stop {holders[0].name} (process {holders[0].pid})"
        if holders and holders[0].name
        else "stop them (nvidia-smi)",
    )


def _named(process: GpuProcess) -> str:
    size = f" {format_bytes(process.memory_bytes)}" if process.memory_bytes else ""
    return f"{process.name or 'process'} ({process.pid}){size}"


def metal_findings(checkup: Checkup) -> Iterator[Finding]:
    """Metal's working-set limit below what the plan (or the model file here) needs."""
    gpu = next((gpu for gpu in checkup.machine.gpus if gpu.vendor is Vendor.APPLE), None)
    if gpu is None or gpu.memory_limit_bytes is None or gpu.memory_total_bytes is None:
        return
    needed = _needed_on(gpu, checkup)
    if needed is None or needed <= gpu.memory_limit_bytes:
        return
    wanted = needed + GIB
    most = gpu.memory_total_bytes - SYSTEM_BYTES
    what = f"{format_bytes(needed)} are needed on the GPU, Metal's limit is {format_bytes(gpu.memory_limit_bytes)}"
    if wanted > most:
        kept = f"{format_bytes(SYSTEM_BYTES)} of {format_bytes(gpu.memory_total_bytes)}"
        fix = f"plan less: even a raised limit must leave {kept} to macOS"
    else:
        fix = (
            f"sudo sysctl iogpu.wired_limit_mb={-(-wanted // MIB)} "
            f"buys {format_bytes(wanted - gpu.memory_limit_bytes)}; it is lost at restart, "
            "and macOS may stall when the rest is too little for other programs"
        )
    yield Finding(code="metal-limit", harm=Harm.OUT_OF_MEMORY, what=what, fix=fix)


def _needed_on(gpu: Gpu, checkup: Checkup) -> int | None:
    """What the plan places there; without a plan the smallest model file here and 1 GiB for cache and buffers."""
    if checkup.plan is not None:
        for device in checkup.plan.memory.devices:
            if device.id == gpu.id:
                return device.weights_bytes + device.kv_cache_bytes + device.compute_bytes + device.overhead_bytes
        return None
    sizes = [
        model.bytes for model in checkup.machine.models if model.store != "ollama" and model.path.endswith(".gguf")
    ]
    return min(sizes) + GIB if sizes else None


def host_findings(checkup: Checkup) -> Iterator[Finding]:
    """Swap in use, the prompt cache against a small limit, WSL's share of the memory, Rosetta."""
    memory = checkup.machine.memory
    if (memory.swap_used_bytes or 0) >= SWAP_BYTES:
        yield Finding(
            code="swap-in-use",
            harm=Harm.SLOW,
            what=f"{format_bytes(memory.swap_used_bytes or 0)} of swap are in use: memory ran short, and a model whose "
            "pages are swapped out decodes at the speed of the disk",
            fix="close other programs, or plan with less context or a smaller file",
        )
    limit = memory.limit_bytes
    has_server = any(engine.kind == "llama-server" for engine in checkup.machine.engines)
    if limit is not None and has_server and limit // 2 < PROMPT_CACHE_BYTES:
        yield Finding(
            code="prompt-cache-exceeds-limit",
            harm=Harm.OUT_OF_MEMORY,
            what=f"llama-server keeps up to {format_bytes(PROMPT_CACHE_BYTES)} of prompts in main memory by default, "
            f"the control group allows {format_bytes(limit)}: the kernel would kill it",
            fix="start it with --cache-ram 0 (plans of glmplan set it), or LLAMA_ARG_CACHE_RAM=0",
        )
    yield from _wsl(checkup)
    if checkup.machine.os.runs_under == "rosetta":
        yield Finding(
            code="rosetta",
            harm=Harm.SLOW,
            what="this Python runs under Rosetta: engines installed for it are x86 and cannot use the GPU",
            fix="install an arm64 Python and install glmplan and the engine again",
        )


def _wsl(checkup: Checkup) -> Iterator[Finding]:
    total = checkup.machine.memory.total_bytes
    if checkup.machine.os.runs_under != "wsl2" or total is None or checkup.model_bytes is None:
        return
    usable = sum(gpu.memory_usable_bytes or 0 for gpu in checkup.machine.gpus if not gpu.unified)
    if total + usable >= checkup.model_bytes + SYSTEM_BYTES:
        return
    yield Finding(
        code="wsl-memory-limit",
        harm=Harm.OUT_OF_MEMORY,
        what=f"WSL2 sees {format_bytes(total)} of the computer's memory (half of it by default); with "
        f"{format_bytes(usable)} on GPUs that is too little for a file of {format_bytes(checkup.model_bytes)}",
        fix="write `memory=` under [wsl2] in %UserProfile%\\.wslconfig, then run `wsl --shutdown`",
    )


def disk_findings(checkup: Checkup) -> Iterator[Finding]:
    """Too little room for the download."""
    disk = checkup.machine.disk
    if disk is None or disk.free_bytes is None or disk.free_bytes >= checkup.needed_bytes:
        return
    yield Finding(
        code="disk-too-full",
        harm=Harm.DOES_NOT_RUN,
        what=f"the model file takes {format_bytes(checkup.needed_bytes)}, "
        f"{disk.path} has {format_bytes(disk.free_bytes)} free",
        fix="make room, or set HF_HOME to another file system",
    )
