"""What others would choose, by their own published rules; docs/how-it-chooses.md tells the rules and where they fail.

`--fit`: llama.cpp common/fit.cpp (context first, then the last layers' experts), for one GPU in closed form, compared
with the program in tests/contract/test_vs_fit.py. Ollama: server/routes.go (context by tiers of GPU memory) and
llm/llama_server.go (its estimate). Calculators: the usual formulas for grouped-query and for full attention.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from glmplan.comparison import Answer, Claim, FrontPoint
from glmplan.ggml_types import GgmlType
from glmplan.model import MlaAttention, ModelProfile
from glmplan.placement import Placement, TensorOverride
from glmplan.planner.candidates import base_of
from glmplan.planner.judging import Candidate, Judge
from glmplan.planner.kv_cache import bytes_per_token
from glmplan.planner.offload import host_expert_bytes, least
from glmplan.units import GIB, MIB

FIT_TARGET_BYTES: Final = 1024 * MIB
FIT_LEAST_CONTEXT: Final = 4096
_STEP: Final = 256
_FIT_OUTPUTS: Final = 512
# server/routes.go: the first tier whose GPU memory is there.
_OLLAMA_TIERS: Final = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))
# What a partial layer of fit leaves in main memory beside its whole ones, the least first.
_PARTS: Final = ("down", "gate|gate_up|down")


def answer_of(name: str, candidate: Candidate, judge: Judge, where_wrong: str) -> Answer:
    """A judged placement as an answer."""
    placement = candidate.placement
    return Answer(
        name=name,
        quantization=candidate.model.quantization,
        n_ctx=placement.n_ctx,
        cache_type=placement.cache_type_k,
        host_expert_bytes=host_expert_bytes(judge.memory, placement),
        missing_bytes={row.id: -row.margin_bytes for row in candidate.memory.devices if row.margin_bytes < 0},
        decode_tokens_per_s=candidate.speed.decode_tokens_per_s,
        where_wrong=where_wrong,
    )


def fit_placement(judge: Judge, *, n_ctx: int | None = None, cache: str = "f16") -> Placement:
    """What `--fit on` makes of this file on one GPU (none: nothing is moved, only the context is cut).

    Args:
        judge: the file on the machine.
        n_ctx: `-c`; None lets fit cut the context.
        cache: KV cache type, which fit never changes.
    """
    trained = judge.model.n_ctx_train
    base = replace(base_of(judge.memory, judge.demand, cache, n_ctx or trained), n_outputs=_FIT_OUTPUTS, n_batch=2048)
    if _fits(judge, base):
        return base
    if n_ctx is None:
        shortest = replace(base, n_ctx=FIT_LEAST_CONTEXT)
        if _fits(judge, shortest):
            too_long = least(1, trained // _STEP, lambda step: not _fits(judge, replace(base, n_ctx=step * _STEP)))
            return replace(base, n_ctx=((too_long or trained // _STEP + 1) - 1) * _STEP)
        base = shortest
    if not judge.memory.spaces.gpus:
        return base
    return _with_last_experts_on_host(judge, replace(base, use_mmap=False))


def _with_last_experts_on_host(judge: Judge, base: Placement) -> Placement:
    n_main = judge.memory.layers.n_main
    lead = judge.model.n_layer_dense_lead

    def at(count: int, partial: str | None = None) -> Placement:
        start = n_main - count
        patterns = [_pattern(range(start + (partial is not None), n_main), "up|down|gate_up|gate")]
        patterns += [_pattern(range(start, start + 1), partial)] if partial is not None else []
        return replace(base, override_tensor=tuple(TensorOverride(pattern=text) for text in patterns if text))

    count = least(1, n_main - lead, lambda n: _fits(judge, at(n)))
    if count is None:
        every = at(n_main - lead)
        layers = least(1, base.n_gpu_layers, lambda n: _fits(judge, replace(every, n_gpu_layers=base.n_gpu_layers - n)))
        return replace(every, n_gpu_layers=base.n_gpu_layers - (layers or base.n_gpu_layers))
    return next((at(count, part) for part in _PARTS if _fits(judge, at(count, part))), at(count))


def _pattern(layers: range, parts: str) -> str:
    return rf"blk\.({'|'.join(map(str, layers))})\.ffn_({parts})_exps" if len(layers) else ""


def _fits(judge: Judge, placement: Placement) -> bool:
    """Fit's own test: every GPU keeps 1,024 MiB of what is free; without GPUs the host's memory, all of it."""
    devices, host = judge.memory.buffers(placement)
    if not devices:
        taken = host.weights_bytes + host.kv_cache_bytes + host.compute_bytes
        total = judge.request.machine.memory.total_bytes or judge.memory.spaces.host.usable_bytes
        return taken <= total - FIT_TARGET_BYTES
    return all(
        part.weights_bytes + part.kv_cache_bytes + part.compute_bytes <= gpu.free_bytes - FIT_TARGET_BYTES
        for part, gpu in zip(devices, judge.memory.spaces.gpus, strict=True)
    )


def ollama_context(judge: Judge) -> int:
    """The context of Ollama's tier, no longer than the model's."""
    memory = sum(gpu.memory_total_bytes or 0 for gpu in judge.request.machine.gpus)
    return min(judge.model.n_ctx_train, next(n_ctx for floor, n_ctx in _OLLAMA_TIERS if memory >= floor))


def rivals(judge: Judge) -> Iterator[Answer]:
    """The answers of the tools that choose, for this file.

    Args:
        judge: the file they are given: Ollama's default tag, or what a user passes to llama-server.
    """
    if len(judge.memory.spaces.gpus) < 2:  # with several its split is found by iteration: ask llama-fit-params
        fitted = judge.judge(fit_placement(judge))
        yield answer_of("llama.cpp --fit on", fitted, judge, _fit_is_wrong(fitted, judge))
        n_ctx = ollama_context(judge)
        tiered = judge.judge(fit_placement(judge, n_ctx=n_ctx))
        yield answer_of("Ollama's tiers", tiered, judge, _ollama_is_wrong(n_ctx, judge))


def _fit_is_wrong(fitted: Candidate, judge: Judge) -> str:
    told = "never looks at another file or cache type"
    if not judge.memory.spaces.gpus:
        return f"{told}; takes all of main memory for free, whatever other programs and control groups hold"
    if fitted.placement.n_ctx <= FIT_LEAST_CONTEXT:
        return f"{told}; cuts the context to {FIT_LEAST_CONTEXT} before it moves one expert"
    return f"{told}; never moves an expert for a longer context; main memory is not looked at"


def _ollama_is_wrong(n_ctx: int, judge: Judge) -> str:
    return (
        f"{n_ctx} tokens because of the GPU's size alone: the same for every file, cache type and speed; its own "
        f"estimate takes {_ollama_bytes_per_token(judge.model)} bytes for a token of context, which takes "
        f"{_true_bytes_per_token(judge.model)}"
    )


def _ollama_bytes_per_token(model: ModelProfile) -> int:
    """2 x layers x KV heads x (embedding / heads) x 2 bytes (llm/llama_server.go); this file says one KV head."""
    heads = model.attention.n_head
    n_head_kv = 1 if isinstance(model.attention, MlaAttention) else model.attention.n_head_kv
    return 2 * model.n_layer * n_head_kv * (model.n_embd // heads) * 2


def _true_bytes_per_token(model: ModelProfile) -> int:
    return bytes_per_token(model.attention, GgmlType.F16, model.n_layer - model.n_nextn_layers)


def claims(judge: Judge) -> tuple[Claim, ...]:
    """The longest context that two common formulas allow for this file."""
    spaces, model = judge.memory.spaces, judge.model
    room = sum(gpu.usable_bytes for gpu in spaces.gpus) or spaces.host.usable_bytes
    true = _true_bytes_per_token(model)
    full = 2 * model.n_layer * model.n_embd * 2
    found = (
        ("a formula for full attention", full, "every head of every layer with its own K and V"),
        ("Ollama's own estimate", _ollama_bytes_per_token(model), "one KV head of the embedding's share, K and V"),
    )
    return tuple(
        Claim(
            name=name,
            quantization=model.quantization,
            n_ctx=max(0, min(model.n_ctx_train, (room - model.file_bytes) // size)),
            bytes_per_token=size,
            where_wrong=f"{what}: {size / true:.2g} x the {true} bytes that llama.cpp takes; no compute buffers",
        )
        for name, size, what in found
    )


def front(candidates: Sequence[Candidate]) -> tuple[FrontPoint, ...]:
    """The Pareto front of context against decode speed, the shortest context first."""
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (-c.placement.n_ctx, -_decode(c))):
        if not chosen or _decode(candidate) > _decode(chosen[-1]):
            chosen.append(candidate)
    return tuple(
        FrontPoint(
            n_ctx=c.placement.n_ctx,
            decode_tokens_per_s=c.speed.decode_tokens_per_s,
            quantization=c.model.quantization,
            cache_type=c.placement.cache_type_k,
        )
        for c in reversed(chosen)
    )


def _decode(candidate: Candidate) -> float:
    return candidate.speed.decode_tokens_per_s.value
