"""The parts of a report: each is computed for its plan, or the reason why it cannot be is kept."""

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from glmplan.commands.planned_machine import Recovered, judge_of, model_of, rivals_of
from glmplan.errors import GlmplanError
from glmplan.report import CommandShown, Front, MeasuredPoint, Missing, Report

if TYPE_CHECKING:
    from glmplan.launchers.launch import Launch
    from glmplan.measurement import Measurement
    from glmplan.placement import Placement
    from glmplan.plan import Plan
    from glmplan.planner.judging import Judge

MEASURED: Final = "measured points"
CURVES: Final = "context and depth"
FRONT: Final = "front"
COMMAND: Final = "command"
_NAME_IT: Final = "--on MACHINE names the plan's machine: a device of the catalog, or a file of glmplan detect --json"
_PORT: Final = 8080
_LINE: Final = 96
_SAME_SPEED: Final = 0.02


def report_of(plan: "Plan", there: Recovered | None, *, written_at: str) -> Report:
    """The report of `plan`, whose machine is `there` if it is known."""
    from glmplan.planner.curves import context_room, depth_points

    plan = _without_secrets(plan)
    judge = _judge(plan, there)
    command = _command(plan, there)
    front = _front(plan, there, judge)
    measured = _measured(plan)
    drawable = judge if not isinstance(judge, Missing) else None
    parts = (judge, front, command, *(() if measured else (_nothing_measured(there),)))
    return Report(
        plan=plan,
        written_at=written_at,
        machine_source=there.source if there else "as the plan file says; no machine here or in the catalog is it",
        command=None if isinstance(command, Missing) else command,
        room=context_room(drawable.memory, plan.placement) if drawable else None,
        depths=depth_points(drawable, plan.placement, at=plan.speed.depth_tokens) if drawable else (),
        measured=measured,
        front=None if isinstance(front, Missing) else front,
        notes=_moved(plan, drawable) if drawable else (),
        missing=tuple(part for part in parts if isinstance(part, Missing)),
    )


def _without_secrets(plan: "Plan") -> "Plan":
    """`plan` with an address of its model file that may be shown: signed addresses hold secrets."""
    from glmplan.http_requests import shown_url

    if "://" not in plan.model.file:
        return plan
    return replace(plan, model=replace(plan.model, file=shown_url(plan.model.file)))


def _judge(plan: "Plan", there: Recovered | None) -> "Judge | Missing":
    if there is None:
        return Missing(part=CURVES, why="the plan's machine is not this one and not in the catalog", hint=_NAME_IT)
    model = model_of(plan)
    if model is None:
        why = f"the tensors of {plan.model.file} are not known here"
        return Missing(part=CURVES, why=why, hint="write the report where the model file is")
    try:
        judge = judge_of(plan, model, there.situation)
    except GlmplanError as error:
        return Missing(part=CURVES, why=error.message, hint=error.hint)
    if judge is None:
        why = "the plan's memory cannot be computed again from its machine and file: one of them has changed"
        return Missing(part=CURVES, why=why, hint="plan again")
    return judge


def _moved(plan: "Plan", judge: "Judge") -> tuple[str, ...]:
    """That the forecast is another one today, where it is: the machine was measured since, or is known otherwise."""
    then, depth = plan.speed.decode_tokens_per_s.value, plan.speed.depth_tokens
    now = judge.speed.estimate(plan.placement, depth_tokens=depth, prompt_tokens=plan.workload.prompt_tokens)
    value = now.decode_tokens_per_s.value
    if abs(value - then) <= _SAME_SPEED * then:
        return ()
    note = (
        f"the curves are today's forecast: decode {value:.1f} tokens/s at {depth} tokens of depth, where the plan "
        f"says {then:.1f}; what is known of the machine has changed since it was made"
    )
    return (note,)


def _front(plan: "Plan", there: Recovered | None, judge: "Judge | Missing") -> Front | Missing:
    from glmplan.planner.curves import front_of
    from glmplan.planner.planning import ranked_for

    if isinstance(judge, Missing) or there is None:
        return Missing(part=FRONT, why="it is searched on the plan's machine, which is not known")
    models, smaller = rivals_of(plan, judge.model, there.situation)
    try:
        return front_of(ranked_for(models, smaller, judge.around, judge.request, every_context=True))
    except GlmplanError as error:
        return Missing(part=FRONT, why=error.message, hint=error.hint)


def _measured(plan: "Plan") -> tuple[MeasuredPoint, ...]:
    """Every sample of one stream of this configuration on the plan's machine, oldest first."""
    from glmplan.launchers import history

    return tuple(
        MeasuredPoint(
            depth_tokens=sample.depth_tokens,
            prefill_tokens_per_s=sample.prefill_tokens_per_s,
            decode_tokens_per_s=sample.decode_tokens_per_s,
            engine=" ".join(part for part in (run.engine, run.engine_version) if part),
            measured_at=run.created_at,
            synthetic=run.synthetic,
        )
        for run in history.read(plan.machine.fingerprint)
        if _is_of(run, plan)
        for sample in run.samples
        if sample.n_streams == 1
    )


def _is_of(run: "Measurement", plan: "Plan") -> bool:
    """Whether a measurement is of the plan's whole file, in its configuration or in one that is not recorded."""
    if (run.model, run.quantization) != (plan.model.name, plan.model.quantization):
        return False
    if run.n_layer not in {None, plan.model.n_layer}:
        return False
    return run.placement is None or _essence(run.placement) == _essence(plan.placement)


def _essence(placement: "Placement") -> "Placement":
    """What of a placement its speed at a depth follows from: not the room it keeps."""
    return replace(placement, n_ctx=0, engine_build=None, cache_ram_bytes=0, n_parallel=1, n_outputs=1)


def _nothing_measured(there: Recovered | None) -> Missing:
    if there is not None and there.situation.is_here:
        return Missing(part=MEASURED, why="this plan was never measured here", hint="glmplan bench measures it")
    return Missing(part=MEASURED, why="the plan is for another machine, where nothing was measured from here")


def _command(plan: "Plan", there: Recovered | None) -> CommandShown | Missing:
    """What `glmplan run` starts here; for another machine, what a current llama-server is started with."""
    try:
        if there is not None and there.situation.is_here and there.situation.engine is not None:
            return _command_here(plan)
        return _command_elsewhere(plan)
    except GlmplanError as error:
        return Missing(part=COMMAND, why=error.message, hint=error.hint)


def _command_here(plan: "Plan") -> CommandShown:
    from glmplan.commands.fetching import fetch_command, is_here, with_local_file
    from glmplan.commands.launching import engine_for
    from glmplan.launchers import records
    from glmplan.launchers.assemble import assemble
    from glmplan.launchers.launch import Endpoint

    engine, local = engine_for(plan), with_local_file(plan)
    launch = assemble(local, engine, Endpoint(port=_PORT), folder=records.folder())
    how = f"for {engine.kind} {engine.version or ''} on this machine; glmplan run starts it and watches over it"
    if not is_here(local.model):
        how += f"; the model file is not here yet: {fetch_command(plan.model)}"
    return CommandShown(
        text=_filled(_spelled(launch)), how=how, files=tuple((file.path, file.text) for file in launch.files)
    )


def _spelled(launch: "Launch") -> list[str]:
    """Options with their values, quoted for a POSIX shell."""
    found = [" ".join([*(f"{name}={shlex.quote(value)}" for name, value in launch.env), shlex.quote(launch.argv[0])])]
    for word in launch.argv[1:]:
        if word.startswith("-") or len(found) == 1:
            found.append(shlex.quote(word))
        else:
            found[-1] += f" {shlex.quote(word)}"
    return found


def _filled(options: list[str]) -> str:
    """As many options a line as fit, lines joined by backslashes."""
    lines = [options[0]]
    for option in options[1:]:
        if len(lines) > 1 and len(lines[-1]) + len(option) < _LINE:
            lines[-1] += f" {option}"
        else:
            lines.append(option)
    return " \\\n  ".join(lines)


def _command_elsewhere(plan: "Plan") -> CommandShown:
    from glmplan.launchers.export.exported import ExportRequest
    from glmplan.launchers.export.formats import export
    from glmplan.launchers.launch import Endpoint

    written = export("llama-server", ExportRequest(plan=plan, endpoint=Endpoint(port=_PORT)))
    text = "\n".join(line for line in written.text.splitlines() if not line.startswith("#"))
    lost = "".join(f"; not said by it: {loss}" for loss in written.losses)
    return CommandShown(
        text=_filled(text.split(" \\\n  ")),
        how=f"for a current llama-server on that machine; glmplan export --list names other forms{lost}",
    )
