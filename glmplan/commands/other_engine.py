"""`--engine`: a plan for an engine that takes it in its own words, and what those words cannot say."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from glmplan.commands.launching import engine_for, for_this_machine, load_plan, require_same_machine
from glmplan.commands.situation import checked_kind, situation_of, without_gpus
from glmplan.engine import EngineKind
from glmplan.errors import InputError

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.launchers.launch import Launch
    from glmplan.plan import Plan


def plan_and_engine(
    plan_file: str | None, engine: str | None, *, weights: str | None, force: bool
) -> "tuple[Plan, Engine]":
    """The plan of a file, or of this machine without one, for the kind of engine `engine` (None: as it says).

    Raises:
        InputError: no such kind, or weights that are none.
        EngineNotFound: it is not here.
        StalePlan: the plan is for another machine.
        PlanningError: nothing is feasible.
    """
    kind = checked_kind(engine)
    plan = _planned_here(kind) if plan_file is None else load_plan(plan_file)
    is_handed = kind is not None and plan.placement.engine is not kind
    if kind is not None and is_handed:
        plan = dataclasses.replace(plan, placement=dataclasses.replace(plan.placement, engine=kind))
    found = engine_for(plan)
    if plan_file is not None:
        plan = _handed_to(plan, force=force) if is_handed else for_this_machine(plan, force=force)
    if plan.placement.engine is EngineKind.MLX_LM:
        return with_mlx_weights(plan, weights), found
    if weights is not None:
        message = f"--weights {weights}: {plan.placement.engine} runs the GGUF file of the plan"
        raise InputError(message, hint="--engine mlx-lm runs MLX weights; glmplan plan --gguf PATH plans another file")
    return plan, found


def _planned_here(kind: EngineKind | None) -> "Plan":
    from glmplan.commands.plan import make_plan

    return make_plan(None if kind is None else situation_of(None, None, engine=kind.value))


def _handed_to(plan: "Plan", *, force: bool) -> "Plan":
    """A plan whose engine is another than it was made for, as one for that engine on this machine."""
    handed = as_planned_for_its_engine(plan)
    require_same_machine(plan, handed.machine, force=force)
    return handed


def as_planned_for_its_engine(plan: "Plan") -> "Plan":
    """`plan` with the machine and the build that a plan made for its engine here would name."""
    from glmplan.planner.machine_id import planned_machine

    here = situation_of(None, None, engine=plan.placement.engine.value)
    machine = planned_machine(here.machine if here.use_gpus else without_gpus(here.machine), here.engine)
    build = here.engine.version if here.engine else None
    return dataclasses.replace(plan, machine=machine, placement=dataclasses.replace(plan.placement, engine_build=build))


def with_mlx_weights(plan: "Plan", weights: str | None) -> "Plan":
    """`plan` for the folder `weights`, for the one it names, or for the published weights nearest to its file.

    Raises:
        InputError: they are not here, or are no MLX weights.
    """
    from glmplan.launchers.export.weights import stand_in
    from glmplan.profiles.locate import this_machine
    from glmplan.profiles.mlx_weights import find_weights, read_weights

    folder = Path(weights) if weights is not None else Path(plan.model.file)
    if weights is None and not folder.is_dir():
        published = stand_in(plan, "mlx", EngineKind.MLX_LM)
        found = find_weights(this_machine().stores, published.repo)
        if found is None:
            message = f"mlx-lm reads no GGUF files, and {published.repo} is not on this machine"
            hint = f"hf download {published.repo}, or --weights FOLDER"
            raise InputError(message, hint=hint, facts={"repo": published.repo, "bytes": published.weights_bytes})
        for remark in published.remarks:
            sys.stderr.write(f"warning: {remark}\n")
        folder = found
    model = read_weights(folder)
    return dataclasses.replace(plan, model=dataclasses.replace(model, synthetic=plan.model.synthetic))


def warn_of_losses(launch: "Launch") -> None:
    """Say on standard error what of the plan the engine cannot be told."""
    for loss in launch.losses:
        sys.stderr.write(f"warning: not expressed: {loss}\n")
