"""The rehearsal that `glmplan run` makes by itself before it launches a plan of its own for the first time."""

import sys
from typing import TYPE_CHECKING

from glmplan.errors import GlmplanError

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.plan import Plan


def rehearsed_first(plan: "Plan", engine: "Engine", *, fetch: bool) -> "Plan":
    """`plan`, made again by what a rehearsal of it says; the same one where this machine was rehearsed before.

    Nothing is rehearsed for a file that is neither here nor about to be fetched. A rehearsal that fails is no reason
    not to launch: it is said, and the plan stays.
    """
    from glmplan.commands.fetching import is_here
    from glmplan.commands.plan import make_plan
    from glmplan.commands.rehearse import DEFAULT_BUDGET_S
    from glmplan.commands.rehearsing import rehearsed
    from glmplan.commands.situation import situation_of
    from glmplan.launchers import history

    known = history.rehearsals_file(plan.machine.fingerprint).is_file()
    if known or not (fetch or is_here(plan.model)):
        return plan
    sys.stderr.write("first launch on this machine: the plan is rehearsed (once; --no-rehearse leaves it out)\n")
    here = situation_of(None, None, engine=plan.placement.engine.value)
    try:
        rehearsed(plan, engine, here, budget_s=DEFAULT_BUDGET_S)
        return make_plan(here)
    except GlmplanError as error:
        sys.stderr.write(f"not rehearsed: {error.message}\n")
        return plan
