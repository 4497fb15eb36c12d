"""`glmplan rehearse`: exact allocation and measured speed on this machine, before any download."""

import sys
from typing import Annotated, Final

import typer

from glmplan.commands.numbers import finite

DEFAULT_BUDGET_S: Final = 80.0


def rehearse(
    plan_file: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="A plan file, or - for standard input; none: plan first.")
    ] = None,
    quant: Annotated[str, typer.Option(help="Without a plan: auto, or a quantisation such as q4_K_M.")] = "auto",
    n_ctx: Annotated[str, typer.Option(help="Without a plan: context in tokens, auto, max, or a number.")] = "auto",
    engine: Annotated[str | None, typer.Option(help="Without a plan: use this kind of engine.")] = None,
    budget: Annotated[
        float,
        typer.Option(
            callback=finite, min=15, metavar="SECONDS", help="How long it may take; less means fewer repetitions."
        ),
    ] = DEFAULT_BUDGET_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/rehearsal/1).")] = False,
) -> None:
    """Run the plan's engine on models of a few layers and say what the full one allocates and how fast it will be."""
    from glmplan.commands.launching import for_this_machine, llama_cpp_engine_for, load_plan
    from glmplan.commands.plan import make_plan
    from glmplan.commands.rehearsing import rehearsed
    from glmplan.commands.situation import situation_of

    if plan_file is None:
        plan = make_plan(situation_of(None, None, engine=engine), quant=quant, n_ctx=n_ctx)
    else:
        plan = for_this_machine(load_plan(plan_file))
    here = situation_of(None, None, engine=plan.placement.engine.value)
    done = rehearsed(plan, llama_cpp_engine_for(plan, "rehearse"), here, budget_s=budget)
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(done) + "\n")
    else:
        from glmplan.render.rehearse import rehearsal_lines

        sys.stdout.write("\n".join(rehearsal_lines(done)) + "\n")
