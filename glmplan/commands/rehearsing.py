"""Rehearse a plan: exact allocation, cuts of its model run by its engine, and what their times say of the whole."""

import contextlib
import datetime
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from glmplan import __version__
from glmplan.errors import BenchError, EngineError, GlmplanError, UnsupportedModel
from glmplan.rehearsal import Allocation, CutFile, Footprint, Phase, Rehearsal
from glmplan.units import GIB, MIB, format_bytes

if TYPE_CHECKING:
    from glmplan.commands.situation import Situation
    from glmplan.engine import Engine
    from glmplan.launchers.rehearse import Rehearser
    from glmplan.launchers.rehearse_pool import EnginePool, Seat
    from glmplan.placement import Placement
    from glmplan.plan import Plan
    from glmplan.planner.cuts import Stack
    from glmplan.planner.extrapolation import Line
    from glmplan.planner.memory import MemoryModel
    from glmplan.rehearsal import Cut, Timing

_ALLOWED_BYTES: Final = 4 * GIB
# This process, the files' noise and headers, and what an engine takes beyond what is thought of it.
_BESIDE_BYTES: Final = 300 * MIB
_SHARE_OF_FREE: Final = 0.8
# Prompts and answers stay among the tokens whose embedding and output rows hold noise.
_NOISE_TOKENS: Final = 8192
_MOST_PROMPT_TOKENS: Final = 512
_SHORT_PROMPT_TOKENS: Final = 128
_LONG_BUDGET_S: Final = 60.0
# The cuts with expert layers go this deep: enough to see that their context costs what the leading layers' does.
_DEEPEST_OTHERS: Final = 2048
_OUTPUT_ROOM: Final = 128
_CONTEXT_STEP: Final = 256
# Stopping the engines, the fit and the last answer.
_CLOSING_S: Final = 4.0
_LEAST_BUDGET_S: Final = 15.0


class _Stage:
    """One rehearsal under way: what is rehearsed, with which cuts, in which files."""

    def __init__(self, plan: "Plan", engine: "Engine", stack: "Stack", here: "Situation", budget_s: float) -> None:
        self.plan = plan
        self.engine = engine
        self.stack = stack
        self.here = here
        self.budget_s = budget_s
        self.began = time.monotonic()
        placement = plan.placement
        wanted = _MOST_PROMPT_TOKENS if budget_s >= _LONG_BUDGET_S else _SHORT_PROMPT_TOKENS
        self.prompt_tokens = max(1, min(placement.n_ubatch, wanted, placement.n_ctx // 2))
        room = placement.n_ctx - self.prompt_tokens - _OUTPUT_ROOM
        self.deepest = max(self.prompt_tokens, min(plan.speed.depth_tokens, room))
        self.cuts = self._cuts()
        self.files: dict[str, Path] = {}
        self.disk_bytes: dict[str, int] = {}
        self.logs: dict[str, Path] = {}

    def depths(self, cut: "Cut") -> tuple[int, ...]:
        """Depths a cut is to reach, the shallow ones first."""
        from glmplan.launchers.rehearse import ladder

        deepest = self.deepest if cut.is_lead else min(self.deepest, _DEEPEST_OTHERS)
        return tuple(ladder(self.prompt_tokens, deepest))

    def placement(self, cut: "Cut") -> "Placement":
        """The plan's knobs for a cut; the base has the plan's context where that is cheap, to see its buffers."""
        from glmplan.planner.cuts import BASE, cut_placement

        n_ctx = self._n_ctx(cut)
        if cut.name == BASE and self.plan.placement.n_ctx * len(cut.layers) <= _NOISE_TOKENS * 32:
            n_ctx = max(n_ctx, self.plan.placement.n_ctx)
        return cut_placement(self.plan.placement, cut, n_ctx=n_ctx)

    @property
    def room_bytes(self) -> int:
        """Memory the engines may take together."""
        free = self.here.machine.memory.available_bytes
        return min(_ALLOWED_BYTES, int(_SHARE_OF_FREE * free) if free else _ALLOWED_BYTES) - _BESIDE_BYTES

    def size(self, cut: "Cut") -> int:
        """Memory that a cut's engine is thought to take."""
        from glmplan.planner.cuts import engine_bytes

        placement = self.placement(cut)
        return engine_bytes(self.stack, cut, placement, placement.n_ctx)

    def write(self, folder: Path) -> None:
        """Write the model file of every cut."""
        from glmplan.planner.cuts import cut_model
        from glmplan.profiles.synthetic import write_synthetic

        for cut in self.cuts:
            model = cut_model(self.stack.model, cut)
            path = folder / f"{model.name}-{model.quantization}-{cut.name}.gguf"
            noise = min(_NOISE_TOKENS, model.n_vocab)
            self.disk_bytes[cut.name] = write_synthetic(path, model, random_weights=True, noise_tokens=noise)
            self.files[cut.name] = path

    def plan_of(self, cut: "Cut") -> "Plan":
        """The plan that serves a cut."""
        from glmplan.planner.cuts import cut_model
        from glmplan.planner.planning import planned_model

        path = self.files[cut.name]
        model = replace(cut_model(self.stack.model, cut), file=str(path), file_bytes=path.stat().st_size)
        return replace(self.plan, model=planned_model(model), placement=self.placement(cut))

    @contextlib.contextmanager
    def open(self, cut: "Cut") -> "Generator[Seat, None, None]":
        """Serve a cut as long as the block lasts."""
        from glmplan.commands.launching import endpoint_for, launched, target_of
        from glmplan.launchers.rehearse_pool import Seat

        endpoint = endpoint_for("127.0.0.1", 0, None)
        limit_s = self.left_s() + _CLOSING_S
        with launched(self.plan_of(cut), self.engine, endpoint, timeout_s=limit_s, on_progress=lambda _: None) as (
            process,
            load_ms,
        ):
            self.logs[cut.name] = process.log
            yield Seat(cut=cut, target=target_of(endpoint), process=process, load_ms=load_ms)

    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def left_s(self) -> float:
        """Seconds left for timing."""
        return max(1.0, self.budget_s - self.seconds() - _CLOSING_S)

    def _cuts(self) -> "tuple[Cut, ...]":
        from glmplan.planner.cuts import cuts_for

        n_ctx = min(self.deepest, _DEEPEST_OTHERS) + self.prompt_tokens + _OUTPUT_ROOM
        return cuts_for(self.stack, self.plan.placement, n_ctx=n_ctx, room_bytes=self.room_bytes)

    def _n_ctx(self, cut: "Cut") -> int:
        needed = max([self.prompt_tokens, *self.depths(cut)]) + _OUTPUT_ROOM
        return -(-needed // _CONTEXT_STEP) * _CONTEXT_STEP


def rehearsed(plan: "Plan", engine: "Engine", here: "Situation", *, budget_s: float) -> Rehearsal:
    """Rehearse `plan` on this machine within `budget_s` seconds; what it says is kept for later plans.

    Raises:
        UnsupportedModel: the model cannot be cut here.
        EngineError: the engine refused, or died.
        BenchError: too little could be measured.
        GlmplanError: another rehearsal is under way.
    """
    from glmplan.launchers import history
    from glmplan.planner.cuts import Stack

    stack = Stack(_memory_of(plan, here), plan.placement)
    stage = _Stage(plan, engine, stack, here, max(_LEAST_BUDGET_S, budget_s))
    allocation = _allocated(stage)
    with _own_folder() as folder:
        stage.write(folder)
        timings, pool, rehearser = _timed(stage)
    done = _document(stage, allocation or _allocated_like(stage), timings, pool, rehearser)
    try:
        history.append_rehearsal(done)
    except GlmplanError as unkept:
        sys.stderr.write(f"later plans will not know of this rehearsal: {unkept.message}\n")
    return done


def _memory_of(plan: "Plan", here: "Situation") -> "MemoryModel":
    from glmplan.commands.planned_machine import model_of
    from glmplan.commands.situation import without_gpus
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.spaces import spaces_of

    model = model_of(plan)
    if model is None:
        message = f"the layers of {plan.model.name} {plan.model.quantization} are not known here"
        raise UnsupportedModel(message, hint="rehearse a file of the catalog: glmplan rehearse --quant q4_K_M")
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    return MemoryModel(model, spaces_of(machine))


def _allocated(stage: _Stage) -> Allocation | None:
    """The plan's ledger as its engine's dry run of the full file says; None where it cannot be asked."""
    from glmplan.commands.exact import ask_engine, can_confirm, planned_devices
    from glmplan.estimate import Basis

    if not can_confirm(stage.engine):
        return None
    answer = ask_engine(stage.stack.model, stage.plan.placement, stage.here)
    if answer is None or (answer.refusal or "").startswith(("no answer", "no dry run")):
        return None
    if answer.refusal is not None:
        message = f"the engine refuses this configuration: {answer.refusal}"
        raise EngineError(message, hint="plan again: glmplan plan", facts={"refusal": answer.refusal})
    return Allocation(
        devices=planned_devices(stage.plan, answer),
        basis=Basis.MEASURED.value,
        source="the engine's dry run of the full file, without its weights",
    )


def _allocated_like(stage: _Stage) -> Allocation:
    """Without a dry run: the formula, with the buffers that a cut really got where it had the plan's context."""
    from glmplan.launchers import load_log
    from glmplan.planner.cuts import BASE

    plan = stage.plan
    formula = Allocation(
        devices=plan.memory.devices,
        basis=plan.memory.basis,
        source="computed: no engine here can be asked without loading the weights",
    )
    base = next(cut for cut in stage.cuts if cut.name == BASE)
    log = stage.logs.get(BASE)
    if log is None or len(plan.memory.devices) > 1 or stage.placement(base).n_ctx != plan.placement.n_ctx:
        return formula
    with log.open(encoding="utf-8", errors="replace") as lines:
        report = load_log.parse(lines)
    kv, compute = report.sum_bytes("kv"), report.sum_bytes("compute")
    if not kv or not compute:
        return formula
    row = next(iter(plan.memory.devices))
    kv = kv // len(base.layers) * stage.stack.n_main
    margin = row.usable_bytes - row.weights_bytes - kv - compute - row.overhead_bytes
    device = replace(row, kv_cache_bytes=kv, compute_bytes=compute, margin_bytes=margin)
    source = (
        f"weights from the file's tensors; KV cache and compute as the engine allocated them for {len(base.layers)} "
        f"layers at {plan.placement.n_ctx} tokens, the KV cache times {stage.stack.n_main}/{len(base.layers)}; "
        "overhead assumed"
    )
    return Allocation(devices=(device,), basis="calibrated", source=source)


@contextlib.contextmanager
def _own_folder() -> Generator[Path, None, None]:
    """A folder for the cuts, empty at the start and gone at the end; what a killed rehearsal left goes first.

    Raises:
        GlmplanError: another rehearsal holds it.
    """
    import fcntl
    import shutil

    from glmplan.paths import cache_folder

    folder = cache_folder() / "rehearse"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock")
    with lock.open("w", encoding="ascii") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = "another rehearsal is running: two at once would disturb each other's timings"
            raise GlmplanError(message, hint="wait for it, or stop it") from error
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _timed(stage: _Stage) -> "tuple[tuple[Timing, ...], EnginePool, Rehearser]":
    from glmplan.launchers.rehearse import Rehearser, RehearseSettings
    from glmplan.launchers.rehearse_pool import EnginePool
    from glmplan.render.progress import ProgressLine

    sizes = {cut.name: stage.size(cut) for cut in stage.cuts}
    sys.stderr.write(
        f"rehearsing {stage.plan.model.name} {stage.plan.model.quantization} with "
        f"{', '.join(str(len(cut.layers)) for cut in stage.cuts)} of {stage.stack.n_main} layers, at most "
        f"{stage.budget_s:.0f} s\n"
    )
    with ProgressLine() as line, EnginePool(stage.open, sizes, stage.room_bytes) as pool:

        def show(timing: "Timing") -> None:
            line.show(
                f"{stage.seconds():.0f} of {stage.budget_s:.0f} s  {timing.cut}: {timing.phase} at "
                f"{timing.depth_tokens:.0f} tokens, {timing.ms_per_token:.3g} ms a token"
            )

        settings = RehearseSettings(
            depths={cut.name: stage.depths(cut) for cut in stage.cuts},
            prompt_tokens=stage.prompt_tokens,
            n_vocab=min(_NOISE_TOKENS, stage.stack.model.n_vocab),
            seconds=stage.left_s(),
            hard_seconds=stage.left_s() + _CLOSING_S / 2,
        )
        rehearser = Rehearser(pool, stage.cuts, settings, on_timing=show)
        timings = rehearser.run()
    return timings, pool, rehearser


def _document(
    stage: _Stage, allocation: Allocation, timings: "Sequence[Timing]", pool: "EnginePool", rehearser: "Rehearser"
) -> Rehearsal:
    from glmplan.planner.cuts import cut_model
    from glmplan.planner.extrapolation import extrapolated

    plan, stack = stage.plan, stage.stack
    decode, prefill = _lines(stage, timings)
    depths = sorted({0, 4096, 16384, plan.speed.depth_tokens} - {d for d in (4096, 16384) if d > plan.placement.n_ctx})
    return Rehearsal(
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        glmplan_version=__version__,
        machine_fingerprint=plan.machine.fingerprint,
        engine=stage.engine.kind.value,
        engine_version=stage.engine.version,
        model=plan.model.name,
        quantization=plan.model.quantization,
        file_bytes=plan.model.file_bytes,
        n_layer=stack.n_main,
        placement=plan.placement,
        allocation=allocation,
        cuts=tuple(
            CutFile(
                cut=cut,
                tensor_bytes=cut_model(stack.model, cut).tensor_bytes,
                disk_bytes=stage.disk_bytes[cut.name],
                resident_bytes=pool.resident_bytes.get(cut.name),
                load_ms=pool.load_ms[cut.name],
            )
            for cut in stage.cuts
        ),
        timings=tuple(timings),
        decode=decode.regression,
        prefill=prefill.regression,
        depth_tokens=plan.speed.depth_tokens,
        speeds=extrapolated(decode, prefill, depths, batch_tokens=min(plan.placement.n_ubatch, plan.placement.n_batch)),
        footprint=Footprint(
            seconds=round(stage.seconds(), 1),
            budget_s=stage.budget_s,
            peak_resident_bytes=pool.peak_bytes,
            peak_disk_bytes=sum(stage.disk_bytes.values()),
            files_written=tuple(str(path) for path in stage.files.values()),
            files_left=tuple(str(path) for path in stage.files.values() if path.exists()),
        ),
        notes=tuple(_notes(stage, timings, rehearser)),
    )


def _lines(stage: _Stage, timings: "Sequence[Timing]") -> "tuple[Line, Line]":
    from glmplan.planner.extrapolation import fit_phase

    try:
        decode, prefill = (fit_phase(stage.stack, stage.cuts, timings, phase) for phase in Phase)
    except BenchError as error:
        busy = max((timing.others_busy for timing in timings), default=0.0)
        message = f"{len(timings)} timings within {stage.budget_s:.0f} s are too few: {error.message}"
        beside = f" (other programs used up to {busy:.1f} cores meanwhile)" if busy else ""
        raise BenchError(
            message + beside,
            hint="close what else runs, or allow more with --budget SECONDS",
            facts={"timings": len(timings), "budget_s": stage.budget_s, "others_busy_cores": busy},
        ) from error
    return decode, prefill


def _notes(stage: _Stage, timings: "Sequence[Timing]", rehearser: "Rehearser") -> Generator[str, None, None]:
    """What the reader ought to know of how it was measured."""
    disturbed = sum(timing.disturbed for timing in timings)
    if disturbed:
        yield (
            f"other programs were busy during {disturbed} of {len(timings)} timings: those count only where there is "
            "no other"
        )
    for cut, depth in rehearser.skipped_depths.items():
        yield f"no time for {cut} at {depth} tokens of context: more --budget reaches it"
    if rehearser.rounds < 3:
        yield f"only {rehearser.rounds} rounds fitted into {stage.budget_s:.0f} s: the ranges are wider for it"
    largest = max(stage.cuts, key=lambda cut: len(cut.layers))
    yield (
        f"extrapolated from at most {len(largest.layers)} of {stage.stack.n_main} layers; a real model routes the "
        "tokens of a text less evenly than noise does"
    )
    if stage.plan.placement.n_parallel > 1:
        yield f"speeds are of one request; the plan has {stage.plan.placement.n_parallel} slots"
    if sum(stage.size(cut) for cut in stage.cuts) > stage.room_bytes:
        yield f"the engines took turns: together they take more than {format_bytes(stage.room_bytes)}"
