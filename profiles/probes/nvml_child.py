"""Asks NVML everything and prints one JSON document; runs as a child because NVML can hang or crash (WSL2).

Every optional question has its own guard: a failing one means "not known", never "no GPU".
"""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

# pynvml has no types: this module is its only reader, and hands on plain JSON.
_WITHOUT_NAME = 2**64 - 1


def main() -> None:
    """Print the JSON document."""
    sys.stdout.write(json.dumps(read_all()))


def read_all() -> dict[str, Any]:
    """The driver and every device it lists, bytes and MHz as NVML gives them."""
    pynvml: Any = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"status": type(error).__name__.removeprefix("NVMLError_"), "message": str(error), "devices": []}
    ask = _guard(pynvml)
    count = ask(pynvml.nvmlDeviceGetCount) or 0
    devices = [
        _device(pynvml, ask, handle)
        for index in range(count)
        if (handle := ask(pynvml.nvmlDeviceGetHandleByIndex, index)) is not None
    ]
    return {
        "status": "ok",
        "driver": _decoded(ask(pynvml.nvmlSystemGetDriverVersion)),
        "cuda": ask(pynvml.nvmlSystemGetCudaDriverVersion_v2),
        "count": count,
        "devices": devices,
    }


def _guard(nvml: Any) -> Callable[..., Any]:  # noqa: ANN401 - untyped library
    def ask(question: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
        try:
            return question(*arguments)
        except (nvml.NVMLError, AttributeError, TypeError, ValueError, UnicodeError):
            return None

    return ask


def _device(nvml: Any, ask: Callable[..., Any], handle: object) -> dict[str, Any]:  # noqa: ANN401
    questions = ("nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetGpuMaxPcieLinkGeneration")
    generations = [ask(getattr(nvml, name), handle) for name in questions if hasattr(nvml, name)]
    known = [generation for generation in generations if generation]
    pci = ask(nvml.nvmlDeviceGetPciInfo, handle)
    mig = ask(nvml.nvmlDeviceGetMigMode, handle)
    ecc = ask(nvml.nvmlDeviceGetEccMode, handle)
    return {
        "name": _decoded(ask(nvml.nvmlDeviceGetName, handle)),
        "uuid": _decoded(ask(nvml.nvmlDeviceGetUUID, handle)),
        "bus_id": _decoded(getattr(pci, "busId", None)),
        **_memory(nvml, ask, handle),
        "compute_capability": ask(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        "bus_bits": ask(nvml.nvmlDeviceGetMemoryBusWidth, handle),
        "max_memory_clock_mhz": ask(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM),
        "pcie_generation": min(known, default=None),
        "pcie_width": ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        "nvlink_links": _nvlinks(nvml, ask, handle),
        "ecc": bool(ecc[0]) if ecc else None,
        "power_limit_mw": ask(nvml.nvmlDeviceGetPowerManagementLimit, handle),
        "addressing_mode": {0: "None", 1: "HMM", 2: "ATS"}.get(ask(nvml.nvmlDeviceGetAddressingMode, handle)),
        "virtualization": ask(nvml.nvmlDeviceGetVirtualizationMode, handle),
        "display_active": _truth(ask(nvml.nvmlDeviceGetDisplayActive, handle)),
        "mig_enabled": bool(mig[0]) if mig else None,
        "mig_devices": _mig_devices(nvml, ask, handle) if mig and mig[0] else [],
        "processes": _processes(nvml, ask, handle),
    }


def _memory(nvml: Any, ask: Callable[..., Any], handle: object) -> dict[str, Any]:  # noqa: ANN401
    """Version 2 says what the driver keeps for itself; version 1 counts that as used."""
    second = ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if second is not None:
        return {"total": second.total, "reserved": second.reserved, "used": second.used, "free": second.free,
                "memory_source": "nvml_v2"}  # fmt: skip
    first = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
    if first is not None:
        return {"total": first.total, "used": first.used, "free": first.free, "memory_source": "nvml_v1"}
    return {"total": None, "used": None, "free": None, "memory_source": None}


def _nvlinks(nvml: Any, ask: Callable[..., Any], handle: object) -> int | None:  # noqa: ANN401
    states = [ask(nvml.nvmlDeviceGetNvLinkState, handle, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
    return None if states[0] is None else sum(state == 1 for state in states)


def _mig_devices(nvml: Any, ask: Callable[..., Any], handle: object) -> list[dict[str, Any]]:  # noqa: ANN401
    slices: list[dict[str, Any]] = []
    for index in range(ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        piece = ask(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if piece is None:
            continue
        attributes = ask(nvml.nvmlDeviceGetAttributes_v2, piece)
        slices.append({
            "name": _decoded(ask(nvml.nvmlDeviceGetName, piece)),
            "uuid": _decoded(ask(nvml.nvmlDeviceGetUUID, piece)),
            **_memory(nvml, ask, piece),
            "multiprocessors": getattr(attributes, "multiprocessorCount", None),
        })  # fmt: skip
    return slices


def _processes(nvml: Any, ask: Callable[..., Any], handle: object) -> list[dict[str, Any]]:  # noqa: ANN401
    found: dict[int, dict[str, Any]] = {}
    for question in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        answered: list[Any] = ask(question, handle) or []
        for process in answered:
            held = process.usedGpuMemory
            # Windows drivers, WSL2 included, answer with a value that means "not available".
            known = held if isinstance(held, int) and 0 < held < _WITHOUT_NAME else None
            name = _decoded(ask(nvml.nvmlSystemGetProcessName, process.pid))
            found[process.pid] = {"pid": process.pid, "name": name, "bytes": known}
    return list(found.values())


def _decoded(value: object) -> str | None:
    """Text; old versions of the library answer with bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _truth(value: object) -> bool | None:
    return bool(value) if isinstance(value, int) else None


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
