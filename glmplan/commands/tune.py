"""`glmplan tune`: measure a plan's neighbours on this machine and keep what wins beyond the noise."""

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.commands.fetching import with_local_file
from glmplan.commands.launching import for_this_machine, llama_cpp_engine_for, load_plan
from glmplan.commands.numbers import finite
from glmplan.commands.plan import write_plan
from glmplan.commands.situation import models_for, situation_of, without_gpus
from glmplan.engine import Engine, EngineKind
from glmplan.errors import InputError
from glmplan.planner.verdict import Goal, Wish
from glmplan.units import parse_seconds, parse_tokens
from glmplan.workload import Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmplan.benchmark import BenchSettings
    from glmplan.machine import Machine
    from glmplan.plan import Plan
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.neighbours import Surroundings
    from glmplan.tuning import TuneReport

_GOALS: Final = {Objective.DECODE_SPEED: Goal.DECODE, Objective.PREFILL_SPEED: Goal.PREFILL}
_PROMPTS: Final = (2048, 1024, 512)
_LONGEST_PROMPT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for; None leaves it to the plan."""

    goal: Goal | None
    budget_s: float
    depth: int | None
    prompt_tokens: int | None
    output_tokens: int
    pins: frozenset[str]
    cache_types: frozenset[str]
    may_cost: float


def tune(
    plan_file: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="A plan file, or - for standard input; none: plan first.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the tuned plan to this file.")] = None,
    objective: Annotated[Goal | None, typer.Option(help="What is to be fast; default: the plan's objective.")] = None,
    budget: Annotated[str, typer.Option(metavar="DURATION", help="How long it may measure.")] = "15m",
    depth: Annotated[
        str | None, typer.Option(metavar="N", help="Tokens already in the context; default: the plan's own depth.")
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompt to time; default: 512 to 2048, about ten seconds.")
    ] = None,
    output_tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode.")] = 32,
    pin: Annotated[list[str] | None, typer.Option(metavar="KNOB", help="Leave this knob alone; repeatable.")] = None,
    allow_cache_type: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Try this KV cache type although it costs quality.")
    ] = None,
    may_cost: Annotated[
        float,
        typer.Option(callback=finite, min=0, max=1, help="Share of the other speed that prefill or decode may cost."),
    ] = 0.0,
    synthetic: Annotated[
        int | None, typer.Option(min=2, max=47, help="Without weights: tune on so many layers of synthetic ones.")
    ] = None,
    n_ctx: Annotated[str, typer.Option(help="Context of the synthetic model's plan.")] = "8192",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/tune/1).")] = False,
) -> None:
    """Measure configurations one knob away from a plan, and keep what is faster beyond the noise."""
    asked = Asked(
        goal=objective,
        budget_s=parse_seconds(budget),
        depth=None if depth is None else parse_tokens(depth),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        pins=_checked(pin or []),
        cache_types=frozenset(allow_cache_type or []),
        may_cost=may_cost,
    )
    if synthetic is not None and plan_file is not None:
        message = "--synthetic plans for a stand-in itself"
        raise InputError(message, hint="leave the plan or --synthetic out")
    plan = _stand_in(synthetic, n_ctx) if synthetic is not None else _given(plan_file)
    report = tuned(plan, asked)
    if output is not None:
        write_plan(report.plan, output)
    _show(report, output, as_json=as_json)


def _given(plan_file: str | None) -> "Plan":
    plan = load_plan(plan_file)
    return plan if plan_file is None else for_this_machine(plan)


def _stand_in(layers: int, n_ctx: str) -> "Plan":
    """A plan for a cut model with synthetic weights, written once."""
    from glmplan.commands.plan import make_plan
    from glmplan.paths import cache_folder
    from glmplan.profiles.recipes import catalog_profile
    from glmplan.profiles.synthetic import write_synthetic

    path = cache_folder() / "tune" / f"glm-4.7-flash-q4_K_M-{layers}-layers-synthetic.gguf"
    if not path.is_file():
        write_synthetic(path, catalog_profile("q4_K_M", n_layer=layers), random_weights=True)
    return make_plan(gguf=str(path), n_ctx=n_ctx, quant="auto")


def _checked(pins: list[str]) -> frozenset[str]:
    from glmplan.planner.neighbours import KNOBS

    unknown = [name for name in pins if name not in KNOBS]
    if unknown:
        message = f"no knob named {unknown[0]!r}"
        raise InputError(message, hint=f"--pin is one of: {', '.join(KNOBS)}")
    return frozenset(pins)


def tuned(plan: "Plan", asked: Asked) -> "TuneReport":
    """The race, and the plan that came out of it.

    Raises:
        BenchError: the plan cannot be measured.
        EngineNotFound: its engine is not here.
    """
    from glmplan.commands.other_engine import as_planned_for_its_engine
    from glmplan.commands.tune_race import Tuning
    from glmplan.commands.tune_report import report_of
    from glmplan.launchers import rivals
    from glmplan.launchers.model_file import require_model
    from glmplan.launchers.tune_runs import Runner
    from glmplan.paths import cache_folder
    from glmplan.planner.neighbours import neighbours

    engine = llama_cpp_engine_for(plan, "tune")
    plan = with_local_file(plan)
    require_model(plan.model)
    machine = _machine(plan)
    memory = _memory(plan, machine)
    settings = _settings(plan, asked)
    others = _other_engines(engine, asked.pins)
    around = _around(machine, asked, settings.prompt_tokens, pins_of(plan, asked.pins), others)
    found, untried = neighbours(plan.placement, memory, around)
    wish = Wish(_goal(plan, asked), plan.workload.prompt_tokens, plan.workload.output_tokens, asked.may_cost)
    folder = cache_folder() / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="slots-") as slots:
        runner = Runner(plan, engine, settings, Path(slots), others)
        against = rivals.rivals_of(runner.rivals_by)
        race = Tuning(plan.placement, found, against, memory, runner, wish, asked.budget_s)
        default = rivals.defaults_of(plan.placement)
        if not race.field.rivals and default != plan.placement and memory.estimate(default).fits:
            race.add_default(rivals.DEFAULTS, default)
        verdict = race.run()
        report = report_of(plan, engine, settings, asked.budget_s, race, verdict, untried)
    if report.plan.placement.engine is plan.placement.engine:
        return report
    return replace(report, plan=as_planned_for_its_engine(report.plan))


def _other_engines(engine: Engine, pins: frozenset[str]) -> tuple[Engine, ...]:
    """What could serve the plan instead, where its engine is not pinned; llama-server beside ik_llama.cpp always."""
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.engine import find_engines
    from glmplan.profiles.probes.other_servers import find_ik_llama

    if engine.kind is EngineKind.IK_LLAMA:
        return tuple(each for each in find_engines(LocalHost()) if each.kind is EngineKind.LLAMA_SERVER)
    found = None if "engine" in pins else find_ik_llama(LocalHost())
    return () if found is None else (found,)


def _machine(plan: "Plan") -> "Machine":
    here = situation_of(None, None, engine=plan.placement.engine.value)
    return here.machine if here.use_gpus else without_gpus(here.machine)


def _memory(plan: "Plan", machine: "Machine") -> "MemoryModel":
    """The ledger, with no more room than the plan was given: a reserve stays a reserve."""
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.spaces import spaces_of

    (model,) = models_for(None, plan.model.file, machine)
    spaces = spaces_of(machine)
    usable = {row.id: row.usable_bytes for row in plan.memory.devices}
    gpus = tuple(replace(gpu, usable_bytes=usable.get(gpu.id, gpu.usable_bytes)) for gpu in spaces.gpus)
    host = replace(spaces.host, usable_bytes=min(spaces.host.usable_bytes, usable.get("host", 0)))
    return MemoryModel(model, replace(spaces, gpus=gpus, host=host))


def pins_of(plan: "Plan", asked: frozenset[str]) -> frozenset[str]:
    """Knobs that stay: those named now, and the KV cache type where the plan was asked for one."""
    was_asked = plan.pins is not None and plan.pins.cache_type is not None
    return asked | {"cache_type"} if was_asked else asked


def _around(
    machine: "Machine", asked: Asked, n_tokens: int, pins: frozenset[str], others: "Sequence[Engine]"
) -> "Surroundings":
    from glmplan.planner.neighbours import Surroundings
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.huge_pages import no_huge_pages

    cpu = machine.cpu
    return Surroundings(
        physical_cores=min(cpu.usable_cores, cpu.physical_cores or cpu.usable_cores),
        usable_cores=cpu.usable_cores,
        n_tokens=n_tokens,
        numa_nodes=machine.memory.numa_nodes or 1,
        lockable_bytes=_lockable_bytes(),
        no_huge_pages=no_huge_pages(LocalHost()),
        pins=pins,
        cache_types=asked.cache_types,
        engines=frozenset(other.kind for other in others),
    )


def _lockable_bytes() -> int | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _goal(plan: "Plan", asked: Asked) -> Goal:
    return asked.goal or _GOALS.get(plan.workload.objective, Goal.BALANCED)


def _settings(plan: "Plan", asked: Asked) -> "BenchSettings":
    """One point: the plan's depth, as far as prompt and answer leave room for it."""
    from glmplan.benchmark import BenchSettings
    from glmplan.launchers.tune_runs import samples_wanted

    n_ctx, speed = plan.placement.n_ctx, plan.speed
    prefill, decode = speed.prefill_tokens_per_s.value, speed.decode_tokens_per_s.value
    prompt = asked.prompt_tokens or next((n for n in _PROMPTS if n / prefill <= _LONGEST_PROMPT_S), _PROMPTS[-1])
    if asked.prompt_tokens is None:
        prompt = max(1, min(prompt, n_ctx // 4))
    room = n_ctx - prompt - asked.output_tokens
    depth = asked.depth if asked.depth is not None else max(0, min(speed.depth_tokens, room))
    if depth > room:
        message = f"{depth} tokens of depth, {prompt} of prompt and {asked.output_tokens} of answer exceed {n_ctx}"
        raise InputError(message, hint=f"--depth {max(0, room)}, or a plan with a larger --n-ctx")
    return BenchSettings(
        depths=(depth,),
        prompt_tokens=prompt,
        output_tokens=asked.output_tokens,
        repetitions=samples_wanted(prompt, asked.output_tokens, prefill, decode),
    )


def _show(report: "TuneReport", output: Path | None, *, as_json: bool) -> None:
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(report) + "\n")
        return
    from glmplan.render.tune import tune_lines

    lines = tune_lines(report)
    if output is not None:
        lines.append(f"written to {output}: glmplan run {output}")
    sys.stdout.write("\n".join(lines) + "\n")
