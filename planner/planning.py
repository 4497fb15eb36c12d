"""From a ranked search to a `Plan`: the ledger, the reasons and the machine's fingerprint."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from glmplan import __version__
from glmplan.engine import Engine
from glmplan.errors import NothingFits, PlanningError
from glmplan.model import ModelProfile
from glmplan.placement import Placement
from glmplan.plan import Pins, Plan, PlannedModel, PlannedWorkload, PlanRequest
from glmplan.planner import explain
from glmplan.planner.judging import Candidate, Judge, Surroundings, offloaded_bytes
from glmplan.planner.machine_id import planned_machine
from glmplan.planner.prices import prices
from glmplan.planner.remedies import with_smaller_files
from glmplan.planner.search import search


def make_plan(
    models: Sequence[ModelProfile],
    around: Surroundings,
    request: PlanRequest,
    *,
    engine: Engine | None,
    created_at: str,
    notes: Sequence[str] = (),
    smaller: Sequence[ModelProfile] = (),
    next_better: Callable[[ModelProfile], ModelProfile | None] = lambda _: None,
    others: Callable[[], Sequence[ModelProfile]] = tuple,
) -> Plan:
    """Search and explain.

    Args:
        models: files to choose among.
        around: room, speeds, threads and engine kind.
        request: the machine, the pins and the objective.
        engine: the engine the plan is to run on; None plans for any build of its kind.
        created_at: time stamp, ISO 8601.
        notes: warnings known before the search.
        smaller: files to look at too when none of `models` fits on the GPUs, or anywhere.
        next_better: the file one quality up from another, for its price; None where there is none.
        others: files to name, the best first, when none of those asked for fits.

    Raises:
        PlanningError: nothing is feasible.
        InputError: a pin is impossible.
    """
    try:
        ranked = ranked_for(models, smaller, around, request)
    except NothingFits as refusal:
        judges = [Judge(model, around, replace(request, quant=None)) for model in others()]
        raise with_smaller_files(refusal, judges) from refusal
    best, table = ranked[0], around.quality
    judge = Judge(best.model, around, request)
    workload = PlannedWorkload(
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        n_parallel=request.n_parallel,
        objective=request.objective,
    )
    return Plan(
        glmplan_version=__version__,
        created_at=created_at,
        machine=planned_machine(request.machine, engine),
        model=planned_model(best.model),
        workload=workload,
        placement=_with_build(best, engine),
        memory=explain.planned_memory(best),
        speed=best.speed,
        reasons=explain.reasons(best, ranked, judge),
        warnings=(*notes, *explain.warnings(best, request)),
        alternatives=explain.alternatives(best, ranked, table),
        prices=prices(best, judge, next_better(best.model)),
        quality=explain.planned_quality(best, table),
        pins=Pins(
            quant=request.quant,
            n_ctx=request.n_ctx,
            cache_type=request.cache_type,
            n_parallel=request.n_parallel,
            min_decode_tokens_per_s=request.min_decode_tokens_per_s,
            reserve_bytes=request.reserve_bytes,
        ),
    )


def ranked_for(
    models: Sequence[ModelProfile],
    smaller: Sequence[ModelProfile],
    around: Surroundings,
    request: PlanRequest,
    *,
    every_context: bool = False,
) -> list[Candidate]:
    """All candidates, the best first; `smaller` files count only where the others are too large for the GPUs."""

    def found(files: Sequence[ModelProfile], asked: PlanRequest) -> list[Candidate]:
        return search(files, around, asked, every_context=every_context)

    if not smaller:
        return found(models, request)
    try:
        ranked = found(models, replace(request, force=False))
    except PlanningError:
        return found((*models, *smaller), request)
    if around.spaces.gpus and all(offloaded_bytes(candidate) for candidate in ranked):
        return found((*models, *smaller), request)
    return ranked


def _with_build(best: Candidate, engine: Engine | None) -> Placement:
    return replace(best.placement, engine_build=engine.version or engine.build if engine else None)


def planned_model(model: ModelProfile) -> PlannedModel:
    """What a plan keeps of a model file."""
    return PlannedModel(
        name=model.name,
        architecture=model.architecture,
        file=model.file or model.download or f"{model.name}:{model.quantization}",
        file_bytes=model.file_bytes,
        quantization=model.quantization,
        n_layer=model.n_layer,
        n_ctx_train=model.n_ctx_train,
        sha256=model.sha256,
        synthetic=model.synthetic,
    )
