"""`glmplan estimate`: what one explicit configuration takes, without a search."""

import math
from typing import Annotated, Final

import typer

from glmplan.commands.other_runtimes import DEFAULT_RUNTIME, Era, RuntimeUsed
from glmplan.commands.plan import MAX_SLOTS, ModelOption, OnOption, RamOption, check_depth
from glmplan.commands.situation import Situation, file_notes, models_for, situation_of, without_gpus
from glmplan.engine import EngineKind
from glmplan.errors import InputError
from glmplan.estimate import Estimate, MemoryEstimate, SpeedEstimate
from glmplan.machine import Machine
from glmplan.model import ModelProfile
from glmplan.noun import noun
from glmplan.placement import FlashAttention, Placement, TensorOverride
from glmplan.units import parse_bytes, parse_tokens

ESTIMATE_SCHEMA: Final = "glmplan/estimate/1"


@noun
class EstimatedDevice:
    """One device of the answer."""

    id: str
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    usable_bytes: int
    fits: bool


@noun
class EstimatedMemory:
    """The ledger and where its numbers come from."""

    devices: tuple[EstimatedDevice, ...]
    basis: str


@noun
class EstimatedSpeed:
    """Speeds at a depth."""

    depth_tokens: int
    prefill_tokens_per_s: Estimate
    decode_tokens_per_s: Estimate


@noun
class EstimateReport:
    """The document of `glmplan estimate --json`; without a speed where the model has no speed model."""

    schema: str = ESTIMATE_SCHEMA
    quantization: str
    placement: Placement
    memory: EstimatedMemory
    speed: EstimatedSpeed | None
    runtime: RuntimeUsed | None
    warnings: tuple[str, ...]


def estimate(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/estimate/1).")] = False,
    model: ModelOption = None,
    quant: Annotated[str, typer.Option(help="A quantisation of the catalog.")] = "q4_K_M",
    gguf: Annotated[str | None, typer.Option(help="This very file or address instead.")] = None,
    on: OnOption = None,
    ram: RamOption = None,
    n_ctx: Annotated[str, typer.Option(help="Context in tokens, for example 32768 or 32k.")] = "32768",
    cache_type: Annotated[str, typer.Option(help="KV cache type.")] = "f16",
    flash_attn: Annotated[FlashAttention, typer.Option(help="Flash attention.")] = FlashAttention.ON,
    n_gpu_layers: Annotated[
        str, typer.Option(help="Layers on the GPUs, the output layer counted: a number or all.")
    ] = "all",
    n_cpu_moe: Annotated[int, typer.Option(min=0, help="Layers whose experts stay in main memory.")] = 0,
    override_tensor: Annotated[list[str] | None, typer.Option(help="PATTERN=CPU, any number of times.")] = None,
    n_batch: Annotated[int, typer.Option(min=1, help="Logical prompt batch, tokens.")] = 2048,
    n_ubatch: Annotated[int, typer.Option(min=1, help="Physical prompt batch, tokens.")] = 512,
    n_parallel: Annotated[int, typer.Option(min=1, max=MAX_SLOTS, help="Slots.")] = 1,
    tensor_split: Annotated[str | None, typer.Option(help="Shares of the GPUs, for example 3,1.")] = None,
    outputs: Annotated[
        int | None, typer.Option(min=1, help="Rows of logits reserved; llama-server: one per slot.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Tokens already in the context, for the speeds.")] = None,
    reserve: Annotated[str, typer.Option(help="Keep this free on every device.")] = "0",
    exact: Annotated[bool, typer.Option("--exact", help="Ask this machine's engine instead of the formula.")] = False,
    runtime: Annotated[
        str, typer.Option(help="Whose memory: llama.cpp, ollama, mlx-lm, vllm, or per-head (K and V of every head).")
    ] = DEFAULT_RUNTIME,
    runtime_version: Annotated[
        str | None, typer.Option(help="Its version, build or date: 0.15.1, b7836, 2026-02; the newest by default.")
    ] = None,
) -> None:
    """Say what one configuration takes and how fast it is."""
    from glmplan.planner.spaces import planned_gpus

    here = situation_of(on, ram)
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    era = Era(runtime, runtime_version)
    profile = models_for(quant, gguf, machine, model=model)[0]
    context = _checked_context(n_ctx, profile)
    check_depth(depth, context)
    placement = Placement(
        engine=EngineKind.LLAMA_SERVER,
        n_ctx=context,
        n_gpu_layers=_layers(n_gpu_layers, profile),
        n_cpu_moe=n_cpu_moe,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        cache_type_k=cache_type,
        cache_type_v=cache_type,
        flash_attn=flash_attn,
        n_threads=machine.cpu.usable_cores,
        n_threads_batch=machine.cpu.usable_cores,
        use_mmap=n_cpu_moe == 0,
        use_mlock=False,
        tensor_split=_shares(tensor_split, n_gpus=len(planned_gpus(machine))),
        override_tensor=_overrides(override_tensor or []),
        n_parallel=n_parallel,
        n_outputs=outputs if outputs is not None else n_parallel,
    )
    placement = era.fitted(placement, has_gpus=bool(planned_gpus(machine)), exact=exact)
    report = _report(
        profile, placement, machine, era, depth=depth, reserve_bytes=parse_bytes(reserve), here=here, exact=exact
    )
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(report))
    else:
        from glmplan.render.plan import show_estimate

        show_estimate(report.memory.devices, report.speed, basis=report.memory.basis, warnings=report.warnings)


def _report(
    model: ModelProfile,
    placement: Placement,
    machine: Machine,
    era: Era,
    *,
    depth: int | None,
    reserve_bytes: int,
    here: Situation,
    exact: bool,
) -> EstimateReport:
    from glmplan.commands.calibrating import calibrated_speed
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.objective import depth_of
    from glmplan.planner.spaces import planned_gpus, spaces_of
    from glmplan.planner.speed import SpeedModel
    from glmplan.profiles.speed_classes import machine_speed

    if model.compute is None and exact:
        return _engines_report(model, placement, here, reserve_bytes)
    memory = MemoryModel(model, spaces_of(machine, reserve_bytes=reserve_bytes))
    ledger = era.ledger(memory, placement)
    if exact:
        from glmplan.commands.exact import require_exact

        ledger = require_exact(model, placement, here, ledger)
    gpus = tuple(gpu for gpu, _ in planned_gpus(machine))
    device_speeds = machine_speed(machine, gpus, runtime=era.runtime)
    if era.runtime == DEFAULT_RUNTIME:
        device_speeds = calibrated_speed(device_speeds, here)
    speeds = SpeedModel(memory, device_speeds)
    at = depth_of(placement.n_ctx, depth)
    speed = speeds.estimate(placement, depth_tokens=at, prompt_tokens=min(2048, placement.n_ctx))
    return EstimateReport(
        quantization=model.quantization,
        placement=placement,
        memory=_ledger(ledger),
        speed=_speed(speed),
        runtime=era.used(model, placement),
        warnings=(
            *_shortages(ledger, model),
            *(() if exact else memory.notes(placement)),
            *era.differences(model, placement),
        ),
    )


def _engines_report(model: ModelProfile, placement: Placement, asked: Situation, reserve_bytes: int) -> EstimateReport:
    """What the engine itself says of a model that neither the memory nor the speed model covers."""
    from glmplan.commands.exact import engine_ledger

    ledger = engine_ledger(model, placement, asked, reserve_bytes)
    unknown = f"speeds are not known: there is no speed model of {model.architecture}; glmplan bench measures them"
    return EstimateReport(
        quantization=model.quantization,
        placement=placement,
        memory=_ledger(ledger),
        speed=None,
        runtime=None,
        warnings=(*_shortages(ledger, model), unknown),
    )


def _shortages(ledger: MemoryEstimate, model: ModelProfile) -> tuple[str, ...]:
    """Devices that do not hold their part, and what is not sure of the file."""
    short = (f"{row.id}: {-row.margin_bytes} bytes short of what this takes" for row in ledger.devices if not row.fits)
    return (*short, *file_notes(model, min(row.margin_bytes for row in ledger.devices)))


def _ledger(ledger: MemoryEstimate) -> EstimatedMemory:
    rows = tuple(
        EstimatedDevice(
            id=row.id,
            weights_bytes=row.weights_bytes,
            kv_cache_bytes=row.kv_cache_bytes,
            compute_bytes=row.compute_bytes,
            overhead_bytes=row.overhead_bytes,
            usable_bytes=row.usable_bytes,
            fits=row.fits,
        )
        for row in ledger.devices
    )
    return EstimatedMemory(devices=rows, basis=ledger.basis.value)


def _speed(speed: SpeedEstimate) -> EstimatedSpeed:
    return EstimatedSpeed(
        depth_tokens=speed.depth_tokens,
        prefill_tokens_per_s=speed.prefill_tokens_per_s,
        decode_tokens_per_s=speed.decode_tokens_per_s,
    )


def _checked_context(text: str, model: ModelProfile) -> int:
    n_ctx, limit = parse_tokens(text), model.n_ctx_train
    if not 1 <= n_ctx <= limit:
        message = f"a context of {n_ctx} tokens is outside what the model was trained for ({limit})"
        raise InputError(message, hint=f"--n-ctx up to {limit}", facts={"n_ctx": n_ctx, "n_ctx_train": limit})
    return n_ctx


def _layers(text: str, model: ModelProfile) -> int:
    everything = model.n_layer + 1
    if text in {"all", "-1"}:
        return everything
    if not text.isdigit():
        message = f"--n-gpu-layers {text!r} is neither a number nor all"
        raise InputError(message, hint=f"0 to {everything}, or all")
    return min(int(text), everything)


def _shares(text: str | None, *, n_gpus: int) -> tuple[float, ...]:
    if text is None:
        return ()
    example = "for example --tensor-split 3,1"
    try:
        shares = tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError:
        message = f"--tensor-split {text!r} is not a list of numbers"
        raise InputError(message, hint=example) from None
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
        message = f"--tensor-split {text!r} is not a list of shares: each 0 or more, not all 0"
        raise InputError(message, hint=example)
    if len(shares) > n_gpus:
        message = f"--tensor-split {text!r} has {len(shares)} shares, the machine {n_gpus} GPUs"
        raise InputError(message, hint="one share for each GPU, in their order", facts={"gpus": n_gpus})
    return (*shares, *[0.0] * (n_gpus - len(shares)))  # as llama.cpp does: what is not named gets nothing


def _overrides(texts: list[str]) -> tuple[TensorOverride, ...]:
    found: list[TensorOverride] = []
    for text in texts:
        pattern, separator, buffer = text.rpartition("=")
        if not separator:
            message = f"--override-tensor {text!r} is not PATTERN=BUFFER"
            raise InputError(message, hint="for example 'blk\\.[0-9]\\.ffn_.*_exps=CPU'")
        found.append(TensorOverride(pattern=pattern, buffer=buffer))
    return tuple(found)
