"""What more room would buy: a GiB, what other programs hold of a GPU, a higher Metal limit; pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from glmplan.ggml_types import cache_type
from glmplan.machine import Gpu, GpuProcess, Vendor
from glmplan.plan import Price
from glmplan.planner.candidates import undecided
from glmplan.planner.judging import Candidate, Judge, offloaded_bytes
from glmplan.planner.kv_cache import bytes_per_token
from glmplan.planner.offload import best_offload, host_expert_bytes
from glmplan.planner.spaces import GpuSpace, Spaces, planned_gpus
from glmplan.planner.wording import spell
from glmplan.units import GIB, MIB, format_bytes, three_digits

# Less than this held by others is a desktop's own (nvidia-smi captures: 0.2-1.2 GiB).
_HELD_BYTES: Final = 256 * MIB
# What macOS keeps when Metal's limit is raised: as doctor says it.
SYSTEM_BYTES: Final = 4 * GIB
_NAMED: Final = 3
_NOTHING: Final = "nothing"


def room_prices(best: Candidate, judge: Judge) -> Iterator[Price]:
    """Prices of room, each planned again with it."""
    yield _of_gib(best, judge)
    gpus = planned_gpus(judge.request.machine)
    for index, (gpu, usable) in enumerate(gpus):
        if gpu.vendor is Vendor.APPLE:
            yield from _of_limit(best, judge, gpu, usable)
        elif not gpu.unified:
            yield from _of_holders(best, judge, index, gpu)


def _of_gib(best: Candidate, judge: Judge) -> Price:
    spaces = judge.around.spaces
    where = "the first GPU" if spaces.gpus and not spaces.gpus[0].unified else "memory"
    effect, then = _bought(best, judge, _with_more(spaces, 0, GIB), GIB)
    return Price(
        step=f"1 GiB more on {where}" if where != "memory" else "1 GiB more of memory",
        effect=effect,
        decode_tokens_per_s=then.speed.decode_tokens_per_s if then else None,
    )


def _with_more(spaces: Spaces, index: int, n_bytes: int) -> Spaces:
    """One GPU with more room; without GPUs, and where one memory serves both, the host too."""
    if not spaces.gpus:
        return replace(spaces, host=replace(spaces.host, usable_bytes=spaces.host.usable_bytes + n_bytes))
    grown = spaces.gpus[index]
    gpus = tuple(_grown(gpu, n_bytes) if gpu is grown else gpu for gpu in spaces.gpus)
    host = spaces.host
    if grown.unified:
        host = replace(host, usable_bytes=host.usable_bytes + n_bytes)
    return replace(spaces, gpus=gpus, host=host)


def _grown(gpu: GpuSpace, n_bytes: int) -> GpuSpace:
    return replace(gpu, usable_bytes=gpu.usable_bytes + n_bytes, free_bytes=gpu.free_bytes + n_bytes)


def _bought(best: Candidate, judge: Judge, spaces: Spaces, n_bytes: int) -> tuple[str, Candidate | None]:
    """What `n_bytes` more buy: experts back on the GPU at the same context, or more context."""
    n_layers = best.model.n_layer - best.model.n_nextn_layers
    per_token = bytes_per_token(best.model.attention, cache_type(best.placement.cache_type_k), n_layers)
    tokens = min(n_bytes // per_token, best.model.n_ctx_train - best.placement.n_ctx)
    longer = f"{tokens} tokens of context more" if tokens > 0 else ""
    if not offloaded_bytes(best) or not spaces.gpus:
        return longer or f"{_NOTHING}: everything is where it is fastest, with all the context there is", None
    roomier = Judge(best.model, replace(judge.around, spaces=spaces), judge.request)
    found = best_offload(roomier.memory, undecided(roomier.memory, best.placement))
    if found is None:
        return longer or _NOTHING, None
    then = roomier.judge(found)
    back = host_expert_bytes(judge.memory, best.placement) - host_expert_bytes(roomier.memory, found)
    decode = then.speed.decode_tokens_per_s
    effect = (
        f"{format_bytes(max(0, back))} of experts back on the GPU: decode {spell(decode)} tokens/s instead of "
        f"{three_digits(best.speed.decode_tokens_per_s.value)}"
    )
    return f"{effect}; or {longer}" if longer else effect, then


def _of_holders(best: Candidate, judge: Judge, index: int, gpu: Gpu) -> Iterator[Price]:
    """Closing what holds memory of a card, with its name where the driver says it."""
    known = sum(process.memory_bytes or 0 for process in gpu.processes)
    held = max(gpu.memory_used_bytes or 0, known)
    if held < _HELD_BYTES:
        return
    who = _holders(gpu.processes)
    effect, then = _bought(best, judge, _with_more(judge.around.spaces, index, held), held)
    yield Price(
        step=f"closing what holds {format_bytes(held)} of gpu{index} ({who})",
        effect=effect,
        frees_bytes=held,
        decode_tokens_per_s=then.speed.decode_tokens_per_s if then else None,
    )


def _holders(processes: Sequence[GpuProcess]) -> str:
    ordered = sorted(processes, key=lambda process: process.memory_bytes or 0, reverse=True)
    named = [
        f"{process.name or 'process'} {process.pid}"
        + (f" {format_bytes(process.memory_bytes)}" if process.memory_bytes else "")
        for process in ordered[:_NAMED]
    ]
    return ", ".join(named) or "the driver does not say who"


def raised_limit_bytes(gpu: Gpu) -> int | None:
    """What Metal's working-set limit may be raised to: all memory but what macOS needs. None where there is none."""
    if gpu.vendor is not Vendor.APPLE or gpu.memory_total_bytes is None or gpu.memory_limit_bytes is None:
        return None
    return (gpu.memory_total_bytes - SYSTEM_BYTES) // MIB * MIB


def _of_limit(best: Candidate, judge: Judge, gpu: Gpu, usable: int) -> Iterator[Price]:
    """Raising Metal's working-set limit as far as macOS can spare."""
    raised, spaces = raised_limit_bytes(gpu), judge.around.spaces
    more = min(raised or 0, spaces.host.usable_bytes) - usable
    if raised is None or more < _HELD_BYTES:
        return
    grown = replace(spaces, gpus=(_grown(spaces.gpus[0], more), *spaces.gpus[1:]))
    effect, then = _bought(best, judge, grown, more)
    told = "it is lost at restart, and macOS may stall when the rest is too little for other programs"
    yield Price(
        step=f"Metal's limit raised by {format_bytes(more)}: sudo sysctl iogpu.wired_limit_mb={raised // MIB}",
        effect=effect if effect.startswith(_NOTHING) else f"{effect}; {told}",
        frees_bytes=more,
        decode_tokens_per_s=then.speed.decode_tokens_per_s if then else None,
    )
