"""Memory ran out under an engine: what is learned from that, and the smaller plan to try next."""

import dataclasses
import resource
import sys
import time
from typing import TYPE_CHECKING, Final

from glmplan.commands.situation import situation_of, without_gpus
from glmplan.errors import EngineError

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.machine import Machine
    from glmplan.plan import Plan
    from glmplan.planner.judging import Judge, Surroundings
    from glmplan.planner.step_down import Shortage
    from glmplan.step_down import StepDown

_OUT_OF_MEMORY: Final = "out-of-memory"


def is_out_of_memory(error: EngineError) -> bool:
    """Whether an engine died for want of memory (`launchers/failures.py`)."""
    return error.facts.get("cause") == _OUT_OF_MEMORY


def smaller_plan(
    plan: "Plan", engine: "Engine", error: EngineError, *, steps_before: int, serving: bool
) -> "tuple[Plan, StepDown]":
    """The plan to try after `error`; what this engine build needs beside its ledger is remembered.

    Raises:
        NothingFits: nothing is left to give up, or only what the user pinned.
        GlmplanError: the model file has no memory model.
    """
    from glmplan.planner.step_down import Shortage, step_down

    shortage = Shortage(
        device=str(error.facts.get("device") or "host"),
        because=str(error.facts.get("line") or error.message),
        steps_before=steps_before,
        serving=serving,
    )
    here = situation_of(None, None, engine=plan.placement.engine.value)
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    judge = _judge(plan, machine)
    _learn(plan, engine, machine, judge, shortage)
    return step_down(plan, judge, shortage)


def _judge(plan: "Plan", machine: "Machine") -> "Judge":
    """The plan's file on this machine as it is now, without anything learned: that is what is being learned."""
    from glmplan.commands.plan import surroundings_of
    from glmplan.commands.situation import Situation
    from glmplan.plan import Pins, PlanRequest
    from glmplan.planner.judging import Judge
    from glmplan.profiles.gguf import read_profile
    from glmplan.profiles.recipes import with_catalog_facts

    pins = plan.pins or Pins()
    request = PlanRequest(
        machine=machine,
        objective=plan.workload.objective,
        n_ctx=pins.n_ctx,
        cache_type=pins.cache_type,
        n_parallel=plan.workload.n_parallel,
        reserve_bytes=pins.reserve_bytes,
        prompt_tokens=plan.workload.prompt_tokens,
        output_tokens=plan.workload.output_tokens,
        depth_tokens=plan.speed.depth_tokens,
    )
    here = Situation(machine=machine, engine=None, notes=(), use_gpus=True, wanted_kind=plan.placement.engine)
    model = with_catalog_facts(read_profile(plan.model.file))
    return Judge(model, _within_limits(surroundings_of(here, request)), request)


def _within_limits(around: "Surroundings") -> "Surroundings":
    """An address space limit (`ulimit -v`) binds an engine as it binds us: it is no property of the machine."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return around
    host = around.spaces.host
    host = dataclasses.replace(host, usable_bytes=min(host.usable_bytes, limit))
    return dataclasses.replace(around, spaces=dataclasses.replace(around.spaces, host=host))


def _learn(plan: "Plan", engine: "Engine", machine: "Machine", judge: "Judge", shortage: "Shortage") -> None:
    """Remember what has to stay free; nothing where others have taken the memory since the plan was made."""
    from glmplan.launchers import reserves
    from glmplan.planner.reserves import lasting_name, to_learn
    from glmplan.planner.step_down import less_bytes
    from glmplan.reserve import Reserve
    from glmplan.units import format_bytes

    placement = plan.placement
    if not shortage.serving:  # finished prompts are kept later
        placement = dataclasses.replace(placement, cache_ram_bytes=0)
    rows = {row.id: row for row in judge.memory.estimate(placement).devices}
    row = rows.get(shortage.device, rows["host"])
    reserve_bytes = to_learn(row.usable_bytes, row.needed_bytes, less_bytes(row.needed_bytes, shortage.steps_before))
    if reserve_bytes is None:
        free, needed = format_bytes(max(0, row.usable_bytes)), format_bytes(row.needed_bytes)
        sys.stderr.write(f"{row.id} has {free} free now, the plan needs {needed}: something else took the memory\n")
        return
    reserve = Reserve(
        engine=engine.kind.value,
        build=engine.version or engine.build,
        device=lasting_name(machine, row.id),
        reserve_bytes=reserve_bytes,
        learned_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        because=shortage.because,
    )
    try:
        reserves.learn(reserve)
    except OSError as error:
        sys.stderr.write(f"cannot remember that in {reserves.path()}: {error.strerror}\n")
        return
    kept = format_bytes(reserve_bytes)
    sys.stderr.write(f"learned: the next plan for this build keeps {kept} free on {row.id}\n")
