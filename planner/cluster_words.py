"""Reasons and refusals of a cluster plan, in sentences with their numbers; pure."""

from collections.abc import Sequence

from glmplan.cluster import ClusterTotal, ReplicaSlots
from glmplan.machine import Machine
from glmplan.model import ModelProfile
from glmplan.planner.spaces import planned_gpus
from glmplan.units import format_bytes


def node_reasons(slots: Sequence[ReplicaSlots], machine: Machine) -> tuple[str, ...]:
    """What the node runs and what of it stays idle."""
    found = [
        f"{_count(part.replicas, 'replica')} {where(part.gpus_each)}: {_count(part.users_each, 'user')} each with "
        f"{format_bytes(min(device.margin_bytes for device in part.plan.memory.devices))} to spare, "
        f"{part.decode_tokens_per_s.value:.1f} tokens/s together"
        for part in slots
    ]
    used = {gpu for part in slots for gpu in part.gpu_ids}
    idle = [gpu.id for gpu, _ in planned_gpus(machine) if gpu.id not in used]
    if slots and idle:
        found.append(f"{', '.join(idle)} idle: too small for a replica, or left over")
    return tuple(found)


def where(gpus_each: float) -> str:
    """Where one replica lives."""
    if gpus_each == 0:
        return "on the CPU"
    if gpus_each < 1:
        return f"on a share of a GPU ({round(1 / gpus_each)} on each)"
    return "on a GPU of its own" if gpus_each == 1 else f"over {gpus_each:.0f} GPUs"


def layout_reason(parts: Sequence[tuple[int, float]], users: int, decode: float) -> str:
    """The best other way to cut the node, and what it gives."""
    alike: dict[float, int] = {}
    for replicas, gpus_each in parts:
        alike[gpus_each] = alike.get(gpus_each, 0) + replicas
    words = ", ".join(f"{_count(replicas, 'replica')} {where(gpus_each)}" for gpus_each, replicas in alike.items())
    return f"instead of {words}: {decode:.1f} tokens/s for {_count(users, 'user')}"


def why_this_file(chosen: ModelProfile, others: Sequence[ModelProfile]) -> str:
    """Why this file serves the whole cluster."""
    better = [model.quantization for model in others if _is_better(model, chosen)]
    name = chosen.quantization
    if not others:
        return f"{name} on every node: the only file that was asked for or fits"
    if not better:
        return f"{name} on every node: the best quality that fits, and at least half of the fastest file's tokens/s"
    return f"{name} on every node: {', '.join(better)} fits too, but costs more than half of the tokens per second"


def why_not_chosen(other: ModelProfile, their: ClusterTotal, best: ModelProfile, ours: ClusterTotal) -> str:
    """Why another file lost."""
    parts: list[str] = []
    if _is_better(best, other):
        parts.append("lower quality")
    if their.users.value < ours.users.value:
        parts.append(f"{their.users.value:.0f} users instead of {ours.users.value:.0f}")
    theirs, here = their.decode_tokens_per_s.value, ours.decode_tokens_per_s.value
    if theirs < 0.95 * here:
        parts.append(f"{theirs:.0f} instead of {here:.0f} tokens/s")
    if their.nodes_used < ours.nodes_used:
        parts.append(f"runs on {their.nodes_used} of {ours.nodes_used} nodes")
    return "; ".join(parts) or "no better in anything the objective looks at"


def _is_better(model: ModelProfile, other: ModelProfile) -> bool:
    if model.quality_rank is None or other.quality_rank is None:
        return False
    return model.quality_rank < other.quality_rank


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
