"""The engine's own numbers in place of the formula's: a dry run of a header-true file, before any download."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from glmplan.commands.situation import Situation, without_gpus
from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineError, EngineNotFound, InputError
from glmplan.estimate import Basis, DeviceMemory, MemoryEstimate
from glmplan.model import ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Plan, PlannedDevice, PlannedMemory

if TYPE_CHECKING:
    from glmplan.breakdown import Breakdown

_CONFIRM_TIMEOUT_S: Final = 1.0


def require_exact(model: ModelProfile, placement: Placement, here: Situation, ledger: MemoryEstimate) -> MemoryEstimate:
    """`ledger` with weights, KV cache and compute as the engine of this machine says; basis `measured`.

    Raises:
        InputError: the question is about another machine.
        EngineNotFound: no engine here can be asked.
        EngineError: the engine refuses this configuration; the message is its own.
    """
    return with_answer(ledger, _answer(model, placement, here))


def engine_ledger(model: ModelProfile, placement: Placement, here: Situation, reserve_bytes: int) -> MemoryEstimate:
    """The ledger of a model that has no memory model in closed form: the engine's buffers, and our overheads.

    Raises:
        InputError: the question is about another machine.
        EngineNotFound: no engine here can be asked.
        EngineError: the engine refuses this configuration, or has other devices than the machine.
    """
    from glmplan.planner import overheads
    from glmplan.planner.buffers import GraphShape
    from glmplan.planner.kv_cache import padded_context
    from glmplan.planner.spaces import spaces_of

    answer = _answer(model, placement, here)
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    spaces = spaces_of(machine, reserve_bytes=reserve_bytes)
    n_ctx_stream, n_stream = padded_context(placement.n_ctx, placement.n_parallel, kv_unified=placement.kv_unified)
    shape = GraphShape(
        n_ubatch=min(placement.n_ubatch, placement.n_batch, placement.n_ctx),
        n_ctx_stream=n_ctx_stream,
        n_stream=n_stream,
        n_outputs=placement.n_outputs,
        flash_attn=placement.flash_attn is not FlashAttention.OFF,
        converted_kv=False,
        kv_staged_bytes=0,
        wide_cache=False,
    )
    blank = DeviceMemory(
        id="host", usable_bytes=0, weights_bytes=0, kv_cache_bytes=0, compute_bytes=0, overhead_bytes=0
    )
    rows = [
        replace(blank, id=gpu.id, usable_bytes=gpu.usable_bytes, overhead_bytes=overheads.gpu_bytes(gpu, shape))
        for gpu in spaces.gpus
    ]
    taken = overheads.host_bytes(placement, model.n_vocab)
    host = replace(blank, usable_bytes=spaces.host.usable_bytes, overhead_bytes=taken)
    filled = with_answer(MemoryEstimate(devices=(*rows, host), basis=Basis.MEASURED), answer)
    # One memory for both: what the GPU part takes is gone for the host part.
    pairs = zip(filled.devices, spaces.gpus, strict=False)
    shared = sum(row.needed_bytes for row, gpu in pairs if gpu.unified)
    left = replace(filled.devices[-1], usable_bytes=filled.devices[-1].usable_bytes - shared)
    return replace(filled, devices=(*filled.devices[:-1], left))


def _answer(model: ModelProfile, placement: Placement, here: Situation) -> "Breakdown":
    if not here.is_here:
        message = "--exact asks the engine of this machine, which has no devices of another one"
        raise InputError(message, hint="leave --on or --exact out")
    answer = ask_engine(model, placement, here)
    if answer is None:
        message = "no engine here can size a model without loading it"
        hint = "pip install 'glmplan[engine]' (llama-cpp-python), or put llama-server and llama-fit-params on PATH"
        raise EngineNotFound(message, hint=hint)
    if answer.refusal is not None:
        message = f"the engine refuses this configuration: {answer.refusal}"
        raise EngineError(message, hint="change what it names, or leave --exact out", facts={"refusal": answer.refusal})
    if answer.note is not None:
        sys.stderr.write(f"note: {answer.note}\n")
    return answer


def ask_engine(
    model: ModelProfile, placement: Placement, here: Situation, *, timeout_s: float = 30.0
) -> "Breakdown | None":
    """What the engine says, or None when none can be asked."""
    from glmplan.launchers import fit_params
    from glmplan.launchers.dry_run import DryRun, has_dry_run, request_of

    file = str(_header_true_file(model))
    if has_dry_run():
        with DryRun() as engine:
            return engine.ask(request_of(placement, file), timeout_s=timeout_s)
    program = fit_params.program_beside(here.engine) if here.engine else None
    if here.engine is None or program is None:
        return None
    return fit_params.ask(program, here.engine, placement, file)


def with_answer(ledger: MemoryEstimate, answer: "Breakdown") -> MemoryEstimate:
    """`ledger` with the engine's buffers; devices the engine does not have keep the formula's.

    Raises:
        EngineError: the engine has other devices than the plan.
    """
    planned = len(ledger.devices) - 1
    devices = {buffer.device for buffer in answer.buffers if buffer.device is not None}
    if len(devices) != planned:
        message = f"the plan is for {planned} GPUs, the engine here uses {len(devices)}"
        raise EngineError(message, hint="install a build with the GPU's backend (docs/install.md)")
    rows: list[DeviceMemory] = []
    for index, row in enumerate(ledger.devices):
        weights, kv_cache, compute = answer.device_bytes(index if index < planned else None)
        rows.append(replace(row, weights_bytes=weights, kv_cache_bytes=kv_cache, compute_bytes=compute))
    return MemoryEstimate(devices=tuple(rows), basis=Basis.MEASURED)


def confirmed(plan: Plan, models: Sequence[ModelProfile], here: Situation) -> Plan:
    """`plan` with its ledger as the engine that will run it says, where that engine can be asked within a second.

    A refusal of the engine becomes a warning: the plan would not start.
    """
    if not here.is_here or here.engine is None or not can_confirm(here.engine):
        return plan
    model = next(model for model in models if model.quantization == plan.model.quantization)
    answer = ask_engine(model, plan.placement, here, timeout_s=_CONFIRM_TIMEOUT_S)
    if answer is None or (answer.refusal or "").startswith(("no answer", "no dry run")):
        return plan
    if answer.refusal is not None:
        return replace(plan, warnings=(*plan.warnings, f"the engine refuses this configuration: {answer.refusal}"))
    devices = planned_devices(plan, answer)
    short = [row for row in devices if row.margin_bytes < 0]
    notes: tuple[str, ...] = () if answer.note is None else (answer.note,)
    notes += tuple(f"{row.id}: the engine takes {-row.margin_bytes} bytes more than there are" for row in short)
    memory = PlannedMemory(devices=devices, basis=Basis.MEASURED.value)
    return replace(plan, memory=memory, warnings=(*plan.warnings, *notes))


def planned_devices(plan: Plan, answer: "Breakdown") -> tuple[PlannedDevice, ...]:
    """The ledger of `plan` with the engine's buffers.

    Raises:
        EngineError: the engine has other devices than the plan.
    """
    rows = tuple(
        DeviceMemory(
            id=row.id,
            usable_bytes=row.usable_bytes,
            weights_bytes=row.weights_bytes,
            kv_cache_bytes=row.kv_cache_bytes,
            compute_bytes=row.compute_bytes,
            overhead_bytes=row.overhead_bytes,
        )
        for row in plan.memory.devices
    )
    ledger = with_answer(MemoryEstimate(devices=rows, basis=Basis.ROOFLINE), answer)
    return tuple(PlannedDevice.of(row) for row in ledger.devices)


def can_confirm(engine: Engine) -> bool:
    """Whether the library here is the very build the plan will run on, or its sibling program is there."""
    from glmplan.launchers import fit_params
    from glmplan.launchers.dry_run import has_dry_run

    if engine.kind is EngineKind.LLAMA_CPP_PYTHON:
        return has_dry_run()
    if engine.kind is not EngineKind.LLAMA_SERVER:
        return False
    same_wheel = (Path(engine.path).parent.parent / "llama_cpp").is_dir()
    return (same_wheel and has_dry_run()) or fit_params.program_beside(engine) is not None


def _header_true_file(model: ModelProfile) -> Path:
    """The file itself when it is here; otherwise a sparse one with its header, written once."""
    if model.file is not None:
        return Path(model.file)
    from glmplan.paths import cache_folder
    from glmplan.profiles.synthetic import write_synthetic

    name = f"{model.name}-{model.quantization}-{model.n_layer}-{model.file_bytes}.gguf"
    path = cache_folder() / "headers" / name
    if not path.is_file():
        write_synthetic(path, model, tokenizer=False)
    return path
