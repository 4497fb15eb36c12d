"""The plan's ledger beside what the engine allocated, line by line; docs/memory-model.md states the ranges.

Weights and KV caches are exact, up to the rounding of the log. Compute buffers are bounds: what they may be under is
stated, what they may be over is not. What the ledger adds as overhead has no line in any log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan.estimate import Basis
from glmplan.measurement import ROUNDING_BYTES, BufferSize, MemoryReport
from glmplan.plan import Plan, PlannedDevice
from glmplan.proof import LedgerLine, LedgerPart
from glmplan.units import KIB, MIB

_HOST: Final = "host"
# Backends as llama.cpp names their buffers: CUDA0, MTL0_Mapped; CUDA_Host and the like are main memory.
_GPU: Final = re.compile(r"(?:CUDA|ROCm|HIP|MUSA|Vulkan|SYCL|MTL|Metal|CANN|OpenCL|RPC)(\d*)(?:_Mapped|_Private)?")
_MAPPED: Final = "_Mapped"
_REPACKED: Final = "CPU_REPACK"
_KINDS: Final = {LedgerPart.WEIGHTS: "model", LedgerPart.KV_CACHE: "kv", LedgerPart.COMPUTE: "compute"}
# A mapped file begins and ends on pages.
_PAGE_BYTES: Final = 4096
# How far a compute buffer may be above the closed form (tests/contract/test_oracle.py).
_ABOVE_OFFLOADED: Final = 10 * MIB
_ABOVE_PARTIAL: Final = 8 * MIB
_ABOVE_PARTIAL_SHARE: Final = 0.03
_ABOVE_CPU_ONLY: Final = 16 * KIB

_NO_SIZES: Final = "the engine's log names no buffer sizes"
_IN_OVERHEAD: Final = "the ledger counts it in the overhead"
_NO_OVERHEAD: Final = "no engine logs what it takes beside its buffers"
_COPIES: Final = "copies of mapped weights, whose own pages the system can take back"
_GONE: Final = "the system does not tell"
_WITH_GPUS: Final = "what a GPU's driver keeps in main memory is not in the ledger"
_OTHER_ENGINE: Final = "the ledger is llama.cpp's, another engine's process is its own"
_ASSUMED: Final = "the tensors of the file were assumed when the plan was made"


@dataclass(frozen=True, slots=True)
class _Range:
    low_bytes: int | None = None
    high_bytes: int | None = None


def ledger_lines(plan: Plan, memory: MemoryReport, resident_bytes: int | None) -> tuple[LedgerLine, ...]:
    """Every line of the ledger and every buffer of the log, device by device, the resident set last."""
    seen: dict[str, list[BufferSize]] = {device.id: [] for device in plan.memory.devices}
    for buffer in memory.buffers:
        seen.setdefault(device_of(buffer.device), []).append(buffer)
    planned = {device.id: device for device in plan.memory.devices}
    no_sizes = None if memory.buffers else memory.why or _NO_SIZES
    lines = [
        line
        for name in sorted(seen, key=lambda name: (name == _HOST, name))
        for line in _device_lines(plan, name, planned.get(name), seen[name], no_sizes=no_sizes)
    ]
    return (*lines, _resident_line(plan, seen.get(_HOST, []), resident_bytes))


def device_of(buffer: str) -> str:
    """The ledger's device of one of the log's: `CUDA1` is gpu1, `CUDA_Host` and `CPU_Mapped` are the host."""
    match = _GPU.fullmatch(buffer)
    return _HOST if match is None else f"gpu{match[1] or 0}"


def _device_lines(
    plan: Plan, name: str, planned: PlannedDevice | None, seen: Sequence[BufferSize], *, no_sizes: str | None
) -> list[LedgerLine]:
    copies = [buffer for buffer in seen if buffer.device == _REPACKED and _is_mapped(seen)]
    lines: list[LedgerLine] = []
    for part, kind in _KINDS.items():
        found = [buffer for buffer in seen if buffer.kind == kind and buffer not in copies]
        forecast = None if planned is None else int(getattr(planned, f"{part}_bytes"))
        line = _line(name, part, forecast, _sum(found), Basis(plan.memory.basis))
        if no_sizes is not None:
            line = replace(line, why=no_sizes)
        elif line.measured_bytes is None or not forecast:
            line = _without_counterpart(line)
        elif line.basis is Basis.ASSUMED and part is LedgerPart.WEIGHTS:
            line = replace(line, why=_ASSUMED)
        else:
            line = _ranged(line, _range(plan, name, part, forecast, found, copies))
        lines.append(line)
    if copies:
        lines.append(replace(_line(name, LedgerPart.REPACKED, None, _sum(copies), None), why=_COPIES))
    logits = _sum([buffer for buffer in seen if buffer.kind == "output"])
    if logits is not None:
        lines.append(replace(_line(name, LedgerPart.LOGITS, None, logits, None), why=_IN_OVERHEAD))
    if planned is not None:
        overhead = _line(name, LedgerPart.OVERHEAD, planned.overhead_bytes, None, Basis.ASSUMED)
        lines.append(replace(overhead, why=_NO_OVERHEAD))
    return lines


def _resident_line(plan: Plan, seen: Sequence[BufferSize], resident_bytes: int | None) -> LedgerLine:
    """The process as the system counts it; the prompt cache is filled later, and mapped pages come as they are read."""
    host = next((device for device in plan.memory.devices if device.id == _HOST), None)
    cache_ram = plan.placement.cache_ram_bytes
    forecast = None if host is None else max(0, host.needed_bytes - cache_ram)
    line = _line(_HOST, LedgerPart.RESIDENT_SET, forecast, resident_bytes, Basis.ASSUMED)
    if host is None or forecast is None:
        return replace(line, why="the ledger has no row for main memory")
    if not plan.placement.engine.is_llama_cpp:
        return replace(line, why=_OTHER_ENGINE)
    if resident_bytes is None:
        return replace(line, why=_GONE)
    if len(plan.memory.devices) > 1:
        return replace(line, why=_WITH_GPUS)
    copied = sum(buffer.n_bytes for buffer in seen if buffer.device == _REPACKED and _is_mapped(seen))
    mapped = plan.placement.use_mmap
    low = host.kv_cache_bytes + (0 if mapped else host.weights_bytes)
    return _ranged(line, _Range(low_bytes=low, high_bytes=forecast + cache_ram + copied))


def _line(device: str, part: LedgerPart, forecast: int | None, measured: int | None, basis: Basis | None) -> LedgerLine:
    difference = None if forecast is None or measured is None else measured - forecast
    return LedgerLine(
        device=device,
        part=part,
        forecast_bytes=forecast,
        low_bytes=None,
        high_bytes=None,
        basis=None if forecast is None else basis,
        measured_bytes=measured,
        difference_bytes=difference,
        difference_ratio=None if difference is None or not forecast else difference / forecast,
        within_range=None,
        why=None,
    )


def _without_counterpart(line: LedgerLine) -> LedgerLine:
    """One side names it, the other does not."""
    name = line.part.words
    if line.measured_bytes is None and not line.forecast_bytes:
        return replace(line, within_range=True, why=f"no {name} buffer on {line.device}, as planned")
    if line.measured_bytes is None:
        return replace(line, within_range=False, why=f"the engine's log names no {name} buffer on {line.device}")
    return replace(line, within_range=line.measured_bytes == 0, why=f"the plan puts no {name} on {line.device}")


def _ranged(line: LedgerLine, within: _Range) -> LedgerLine:
    seen, low, high = line.measured_bytes or 0, within.low_bytes, within.high_bytes
    inside = (low is None or seen >= low) and (high is None or seen <= high)
    return replace(line, low_bytes=low, high_bytes=high, within_range=inside)


def _range(
    plan: Plan,
    device: str,
    part: LedgerPart,
    forecast: int,
    found: Sequence[BufferSize],
    copies: Sequence[BufferSize],
) -> _Range:
    slack = len(found) * ROUNDING_BYTES
    if part is LedgerPart.KV_CACHE:
        return _Range(low_bytes=forecast - slack, high_bytes=forecast + slack)
    if part is LedgerPart.COMPUTE:
        return _Range(high_bytes=forecast + slack + _compute_above(plan, device, forecast))
    slack += len(found) * _PAGE_BYTES
    copied = sum(buffer.n_bytes for buffer in copies)
    high = forecast + slack
    if _is_mapped(found) and len(plan.memory.devices) > 1:
        # Mapped: the log prints the span from a device's first tensor to its last, others' between them included.
        high = max(high, plan.model.file_bytes)
    return _Range(low_bytes=max(0, forecast - slack - copied), high_bytes=high)


def _compute_above(plan: Plan, device: str, forecast: int) -> int:
    if plan.memory.basis == Basis.MEASURED or (device == _HOST and len(plan.memory.devices) > 1):
        return 0
    if device == _HOST:
        return _ABOVE_CPU_ONLY
    if plan.placement.n_gpu_layers > plan.model.n_layer:
        return _ABOVE_OFFLOADED
    return max(_ABOVE_PARTIAL, round(_ABOVE_PARTIAL_SHARE * forecast))


def _is_mapped(buffers: Iterable[BufferSize]) -> bool:
    return any(buffer.device.endswith(_MAPPED) for buffer in buffers)


def _sum(buffers: Sequence[BufferSize]) -> int | None:
    return sum(buffer.n_bytes for buffer in buffers) if buffers else None
