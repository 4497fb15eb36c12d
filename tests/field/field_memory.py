"""Published memory figures, each beside what the memory model says of the same configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from field_speed import read

from glmplan.engine import EngineKind
from glmplan.estimate import DeviceMemory
from glmplan.ggml_types import cache_type
from glmplan.model import ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.runtimes import layout_of, ledger_of, stored_bytes_per_token
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.runtime_layouts import runtime_history
from glmplan.units import MIB

COMPONENTS: Final = ("weights", "kv_cache", "compute")
COMPONENT_SHARE: Final = 0.02
COMPONENT_MIB: Final = 16.0
TOTAL_SHARE: Final = 0.04
_ROOM: Final = 1 << 50


@dataclass(frozen=True, slots=True)
class Comparison:
    """One published figure: `what` of `device`, both in MiB."""

    record: Mapping[str, Any]
    device: str
    what: str
    published_mib: float
    predicted_mib: float

    @property
    def error(self) -> float:
        """Predicted over published, minus one."""
        return self.predicted_mib / self.published_mib - 1.0

    @property
    def off_mib(self) -> float:
        """Predicted minus published."""
        return self.predicted_mib - self.published_mib

    @property
    def holds(self) -> bool:
        """Whether the bar of its kind holds."""
        if self.record["kind"] == "breakdown":
            return abs(self.error) <= COMPONENT_SHARE or abs(self.off_mib) <= COMPONENT_MIB
        if self.record["kind"] == "cache":
            return abs(self.off_mib) <= max(0.51, float(self.record.get("digits", 0)))
        return abs(self.error) <= TOTAL_SHARE

    @property
    def is_judged(self) -> bool:
        """Whether it counts."""
        return bool(self.record.get("judged", True))


@cache
def _profile(recipe: str, n_expert: int | None) -> ModelProfile:
    """The recipe's profile, with fewer experts where a file was pruned."""
    whole = catalog_profile(recipe)
    if n_expert is None:
        return whole
    tensors = [
        replace(tensor, shape=(*tensor.shape[:-1], n_expert)) if tensor.shape[-1] == whole.n_expert else tensor
        for tensor in whole.tensors
    ]
    return replace(whole, n_expert=n_expert, tensors=tuple(tensors))


def _spaces(n_gpus: int) -> Spaces:
    gpus = tuple(GpuSpace(id=f"gpu{i}", kind=GpuKind.CUDA, usable_bytes=_ROOM, free_bytes=_ROOM) for i in range(n_gpus))
    return Spaces(gpus=gpus, host=HostSpace(usable_bytes=_ROOM))


@cache
def _memory(recipe: str, n_expert: int | None, n_gpus: int) -> MemoryModel:
    return MemoryModel(_profile(recipe, n_expert), _spaces(n_gpus))


def placement_of(record: Mapping[str, Any], *, n_cpu_moe: int = 0) -> Placement:
    """The record's settings; llama-bench makes room for its prompt and reserves a batch of logits."""
    n_gpus, bench = len(record["devices"]), int(record.get("bench", 0))
    split = record.get("split") or [1] * n_gpus
    return Placement(
        engine=EngineKind.LLAMA_SERVER,
        n_ctx=int(record["n_ctx"]) + bench,
        n_gpu_layers=48,
        n_cpu_moe=n_cpu_moe,
        n_batch=2048,
        n_ubatch=int(record["n_ubatch"]),
        cache_type_k=str(record["cache"]),
        cache_type_v=str(record["cache"]),
        flash_attn=FlashAttention(record["flash_attn"]),
        n_threads=8,
        n_threads_batch=8,
        use_mmap=n_cpu_moe == 0,
        use_mlock=False,
        tensor_split=tuple(float(share) for share in split),
        n_parallel=int(record["n_parallel"]),
        n_outputs=int(record["n_ubatch"]) if bench else int(record["n_parallel"]),
    )


def ledger(record: Mapping[str, Any], *, n_cpu_moe: int = 0) -> tuple[DeviceMemory, ...]:
    """What we say, with weights scaled to the size of the very file."""
    file = record["file"]
    memory = _memory(str(file["recipe"]), file.get("n_expert"), len(record["devices"]))
    layout = layout_of(runtime_history(str(record["runtime"])), record.get("version"))
    said = ledger_of(memory, placement_of(record, n_cpu_moe=n_cpu_moe), layout)
    scale = float(file.get("tensor_bytes", memory.model.tensor_bytes)) / memory.model.tensor_bytes
    return tuple(replace(row, weights_bytes=round(row.weights_bytes * scale)) for row in said.devices)


def comparisons() -> list[Comparison]:
    """Every published figure beside ours."""
    return [comparison for record in read("memory.yaml")["records"] for comparison in _compared(record)]


def _compared(record: Mapping[str, Any]) -> list[Comparison]:
    if record["kind"] == "cache":
        layout = layout_of(runtime_history(str(record["runtime"])), record.get("version"))
        per_token = stored_bytes_per_token(catalog_profile("q4_K_M"), layout.stores, cache_type(str(record["cache"])))
        ours = per_token * int(record["n_ctx"]) / MIB
        return [Comparison(record, "all", "kv_cache", float(record["total_mib"]), ours)]
    rows = ledger(record)
    if record["kind"] == "coarse":
        ours = sum(row.needed_bytes for row in rows[:-1]) / MIB
        return [Comparison(record, "gpu0", "used", float(record["used_gb"]) * 1e9 / MIB, ours)]
    if record["kind"] == "total":
        return [
            Comparison(record, row.id, "used", float(used), row.needed_bytes / MIB)
            for row, used in zip(rows[:-1], record["used"], strict=True)
            if used is not None
        ]
    return [
        Comparison(record, row.id, what, float(published), getattr(row, f"{what}_bytes") / MIB)
        for what in COMPONENTS
        for row, published in zip(rows, record[what], strict=True)
        if published
    ]
