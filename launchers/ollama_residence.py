"""Where Ollama put a model, against where its plan wanted it."""

from typing import Final

from glmplan.launchers.export.ollama import context_per_slot
from glmplan.launchers.ollama_api import Loaded
from glmplan.plan import Plan
from glmplan.units import MIB, format_bytes

_SHARE_TOLERANCE: Final = 0.03
_SIZE_TOLERANCE: Final = 0.1
_SIZE_TOLERANCE_BYTES: Final = 256 * MIB


def differences(plan: Plan, loaded: Loaded) -> tuple[str, ...]:
    """What GET /api/ps tells that is not as planned: the numbers, and what to do; empty when all is."""
    return tuple(said for said in (_context(plan, loaded), _share(plan, loaded), _size(plan, loaded)) if said)


def planned_bytes(plan: Plan) -> tuple[int, int]:
    """Weights, KV cache and compute of the plan in all, and those on GPUs: Ollama does not count what drivers take."""
    rows = [(row.id, row.needed_bytes - row.overhead_bytes) for row in plan.memory.devices]
    return sum(n_bytes for _, n_bytes in rows), sum(n_bytes for name, n_bytes in rows if name != "host")


def _context(plan: Plan, loaded: Loaded) -> str | None:
    wanted = context_per_slot(plan.placement)
    if loaded.n_ctx is None or loaded.n_ctx >= wanted:
        return None
    return (
        f"Ollama loaded {loaded.n_ctx} tokens of context, planned were {wanted}: longer prompts are cut without a "
        "word. Stop other models it has loaded (ollama ps), or set OLLAMA_CONTEXT_LENGTH "
        f"to {wanted} for its daemon (glmplan export ollama-env)"
    )


def _share(plan: Plan, loaded: Loaded) -> str | None:
    total, on_gpus = planned_bytes(plan)
    if not total or not loaded.total_bytes:
        return None
    wanted, seen = on_gpus / total, loaded.gpu_bytes / loaded.total_bytes
    if abs(wanted - seen) <= _SHARE_TOLERANCE:
        return None
    there = (
        f"Ollama holds {format_bytes(loaded.gpu_bytes)} of {format_bytes(loaded.total_bytes)} in GPU memory "
        f"({seen:.0%}), planned were {format_bytes(on_gpus)} of {format_bytes(total)} ({wanted:.0%})"
    )
    if seen < wanted:
        return (
            f"{there}: the rest is computed on the CPU, slower than forecast. Free GPU memory (ollama ps, nvidia-smi) "
            "and start again, or plan with less: glmplan plan --reserve SIZE"
        )
    return (
        f"{there}: experts that the plan keeps in main memory are on the GPU, which may run out. Give the daemon the "
        "plan's environment (glmplan export ollama-env), or stop it and let glmplan start its own"
    )


def _size(plan: Plan, loaded: Loaded) -> str | None:
    total, _ = planned_bytes(plan)
    more = loaded.total_bytes - total
    if more <= max(_SIZE_TOLERANCE_BYTES, total * _SIZE_TOLERANCE):
        return None
    return (
        f"Ollama holds {format_bytes(loaded.total_bytes)}, {format_bytes(more)} more than planned. Its KV cache "
        "type and number of slots are those of its daemon: glmplan export ollama-env sets them"
    )
