"""`glmplan compare`: what others would answer for this machine, and where they go wrong."""

from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.commands.plan import OnOption, RamOption, surroundings_of
from glmplan.commands.situation import models_for, situation_of, smaller_models, without_gpus
from glmplan.plan import PlanRequest

if TYPE_CHECKING:
    from glmplan.comparison import Comparison


def compare(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/compare/1).")] = False,
    on: OnOption = None,
    ram: RamOption = None,
) -> None:
    """Show what llama.cpp's fit, Ollama and calculators would answer, where they go wrong, and the front."""
    found = comparison_on(on, ram)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(found))
    else:
        from glmplan.render.compare import show_comparison

        show_comparison(found)


def comparison_on(on: str | None, ram: str | None) -> "Comparison":
    """The comparison for the machine that `--on` names.

    Raises:
        PlanningError: nothing fits.
    """
    from glmplan.comparison import Comparison
    from glmplan.planner.judging import Judge
    from glmplan.planner.planning import ranked_for
    from glmplan.planner.rivals import answer_of, claims, front, rivals

    here = situation_of(on, ram)
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    request = PlanRequest(machine=machine)
    around = surroundings_of(here, request)
    models, smaller = models_for(None, None, machine), smaller_models(machine)
    ranked = ranked_for(models, smaller, around, request, every_context=True)
    best = ranked[0]
    # Ollama's default tag is q4_K_M, and fit takes the file it is given: the one most people have.
    usual = Judge(models_for("q4_K_M", None, machine)[0], around, request)
    return Comparison(
        ours=answer_of("glmplan", best, Judge(best.model, around, request), ""),
        others=tuple(rivals(usual)),
        claims=claims(usual),
        front=front(ranked),
    )
