"""`glmplan plan`: which configuration to run, and why."""

import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.commands.fetching import fetch_command, is_here
from glmplan.commands.numbers import finite
from glmplan.commands.situation import (
    Situation,
    best_first,
    file_notes,
    models_for,
    next_better,
    situation_of,
    smaller_models,
    without_gpus,
)
from glmplan.engine import EngineKind
from glmplan.errors import InputError
from glmplan.plan import Plan, PlanRequest
from glmplan.units import parse_bytes, parse_tokens
from glmplan.workload import Objective

if TYPE_CHECKING:
    from glmplan.cluster import ClusterPlan
    from glmplan.planner.judging import Surroundings
    from glmplan.reserve import Reserve

_AUTO: Final = "auto"
MAX_SLOTS: Final = 256  # LLAMA_MAX_SEQ of llama.cpp (src/llama-cparams.h)
OnOption = Annotated[str | None, typer.Option("--on", help="Another machine: rtx-4090, gpu:24GiB, cpu:32GiB, a file.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="A model of the catalog; default: glm-4.7-flash.")]
RamOption = Annotated[str | None, typer.Option("--ram", help="Host memory of that machine, for example 64GiB.")]


def plan(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/plan/1).")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan to this file.")] = None,
    on: OnOption = None,
    ram: RamOption = None,
    model: ModelOption = None,
    quant: Annotated[str, typer.Option(help="auto, or a quantisation such as q4_K_M or unsloth/UD-Q4_K_XL.")] = "auto",
    gguf: Annotated[str | None, typer.Option(help="Plan for this very file or address.")] = None,
    n_ctx: Annotated[str, typer.Option(help="Context in tokens: auto, max, or a number.")] = "auto",
    cache_type: Annotated[str, typer.Option(help="KV cache type: auto, f16, q8_0, ...")] = "auto",
    objective: Annotated[Objective, typer.Option(help="What to rank by.")] = Objective.BALANCED,
    n_parallel: Annotated[int, typer.Option(min=1, max=MAX_SLOTS, help="Slots that share the context.")] = 1,
    min_decode: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Decode speed to reach, tokens per second.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Tokens in the context when speed is judged.")] = None,
    reserve: Annotated[str, typer.Option(help="Keep this free on every device.")] = "0",
    engine: Annotated[str | None, typer.Option(help="Plan for this kind of engine.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on with a plan that does not fit, and warn.")] = False,
    why: Annotated[bool, typer.Option("--why", help="Show the runners-up and what each step costs.")] = False,
) -> None:
    """Choose file, context, KV cache and placement for a machine, and say why."""
    made = make_plan(
        situation_of(on, ram, engine=engine),
        model=model,
        quant=quant,
        gguf=gguf,
        n_ctx=n_ctx,
        cache_type=cache_type,
        objective=objective,
        n_parallel=n_parallel,
        min_decode=min_decode,
        depth=depth,
        reserve=reserve,
        force=force,
    )
    if output is not None:
        write_plan(made, output)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(made))
    else:
        from glmplan.render.plan import show_plan

        show_plan(made, why=why)
        if output is not None:
            typer.echo(f"written to {output}: glmplan run {output}", err=True)
        if on is None and not is_here(made.model):
            typer.echo(f"the model file is not on this machine yet: {fetch_command(made.model)}", err=True)


def make_plan(
    situation: Situation | None = None,
    *,
    model: str | None = None,
    quant: str = "auto",
    gguf: str | None = None,
    n_ctx: str = "auto",
    cache_type: str = "auto",
    objective: Objective = Objective.BALANCED,
    n_parallel: int = 1,
    min_decode: float | None = None,
    depth: int | None = None,
    reserve: str = "0",
    force: bool = False,
) -> Plan:
    """Plan for `situation` (this machine when None); options as on the command line.

    Raises:
        InputError: an option is wrong.
        PlanningError: nothing is feasible.
    """
    from glmplan.commands.exact import confirmed
    from glmplan.planner.planning import make_plan as decide

    here = situation or situation_of(None, None)
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    request = PlanRequest(
        machine=machine,
        objective=Objective.CONTEXT if n_ctx == "max" and objective is Objective.BALANCED else objective,
        quant=None if quant == "auto" else quant,
        n_ctx=None if n_ctx in {"auto", "max"} else parse_tokens(n_ctx),
        cache_type=_pinned_cache_type(cache_type, here.engine_kind),
        n_parallel=n_parallel,
        min_decode_tokens_per_s=min_decode,
        reserve_bytes=parse_bytes(reserve),
        depth_tokens=depth,
        force=force,
    )
    models = models_for(quant, gguf, machine, model=model)
    check_depth(depth, request.n_ctx or min(profile.n_ctx_train for profile in models))
    more = smaller_models(machine, model) if quant == "auto" and gguf is None else ()
    made = decide(
        models,
        surroundings_of(here, request),
        request,
        engine=here.engine,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        notes=here.notes,
        smaller=more,
        next_better=next_better if gguf is None else lambda _: None,
        others=lambda: best_first(machine, model) if gguf is None else (),
    )
    chosen = next(profile for profile in (*models, *more) if profile.quantization == made.model.quantization)
    room = min(device.margin_bytes for device in made.memory.devices)
    made = replace(made, warnings=(*made.warnings, *file_notes(chosen, room)))
    return confirmed(_with_reserves_told(made, here), (*models, *more), here)


def _with_reserves_told(made: Plan, here: Situation) -> Plan:
    """`made` with a reason for every device where something stays free because memory ran out there before."""
    from glmplan.planner.reserves import reason

    reasons = (reason(device, reserve) for device, reserve in learned_reserves(here).items())
    return replace(made, reasons=(*made.reasons, *reasons))


def learned_reserves(here: Situation) -> "Mapping[str, Reserve]":
    """What the engine of this machine turned out to need, by device id; nothing for another machine."""
    if not here.is_here:
        return {}
    from glmplan.launchers import reserves
    from glmplan.planner.reserves import counting

    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    return counting(machine, here.engine, reserves.read())


def surroundings_of(here: Situation, request: PlanRequest) -> "Surroundings":
    """Room, speeds, threads and engine of the machine a request is about."""
    from glmplan.commands.calibrating import calibrated_speed
    from glmplan.planner.judging import Surroundings
    from glmplan.planner.spaces import planned_gpus, spaces_of
    from glmplan.planner.threads import threads_of
    from glmplan.profiles.quality import quality_table
    from glmplan.profiles.speed_classes import machine_speed

    machine = request.machine
    learned = {device: reserve.reserve_bytes for device, reserve in learned_reserves(here).items()}
    threads = threads_of(machine.cpu, system=machine.os.system)
    return Surroundings(
        spaces=spaces_of(machine, reserve_bytes=request.reserve_bytes, more_reserve_bytes=learned),
        speed=calibrated_speed(machine_speed(machine, tuple(gpu for gpu, _ in planned_gpus(machine))), here),
        engine=here.engine_kind,
        n_threads=threads.decode,
        n_threads_batch=threads.batch,
        why_threads=threads.why,
        quality=quality_table(),
        # A build with AMX code aborts over this model's attention with rearranged weights: docs/install.md.
        can_repack=here.engine_kind is EngineKind.XLLAMACPP or "amx_tile" not in machine.cpu.features,
    )


def _pinned_cache_type(name: str, kind: EngineKind) -> str | None:
    """The type of the KV cache that was asked for; None leaves it to the search.

    Raises:
        InputError: it is none.
    """
    if name != _AUTO:
        return checked_cache_type(name)
    return "f16" if kind is EngineKind.MLX_LM else None  # mlx-lm cannot quantise this model's KV cache


def checked_cache_type(name: str) -> str:
    """`name`, if it is a type of the KV cache.

    Raises:
        InputError: it is none.
    """
    from glmplan.ggml_types import cache_type

    cache_type(name)
    return name


def check_depth(depth: int | None, n_ctx: int) -> None:
    """Refuse speeds at a depth that no context reaches.

    Raises:
        InputError: `depth` is outside 0 to `n_ctx`, both in tokens.
    """
    if depth is not None and not 0 <= depth <= n_ctx:
        message = f"a depth of {depth} tokens is not within the context of {n_ctx}"
        raise InputError(message, hint=f"--depth 0 to {n_ctx}", facts={"depth_tokens": depth, "n_ctx": n_ctx})


def write_plan(made: "Plan | ClusterPlan", output: Path) -> None:
    """Write a plan as JSON, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    from glmplan.commands.answer_file import write_answer
    from glmplan.jsonio import dumps

    write_answer(output, dumps(made) + "\n")
