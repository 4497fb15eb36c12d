"""`glmplan report`: one self-contained page about a plan."""

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.commands.answer_file import write_answer
from glmplan.commands.plan import OnOption, RamOption

if TYPE_CHECKING:
    from glmplan.report import Report


def report(
    plan_file: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="A plan file, or - for standard input; none: plan first.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Write the page to this file.")] = Path("report.html"),
    on: OnOption = None,
    ram: RamOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/report/1).")] = False,
) -> None:
    """Write a page that shows a plan: memory, context, speed, the front and the command; it needs no network."""
    made = make_report(plan_file, on, ram)
    from glmplan.render.report import figures_on, page

    text = page(made)
    write_answer(output, text)
    for missing in made.missing:
        hint = f" ({missing.hint})" if missing.hint else ""
        sys.stderr.write(f"not on the page: {missing.part}: {missing.why}{hint}\n")
    if as_json:
        from glmplan.jsonio import dumps
        from glmplan.report import ReportWritten

        written = ReportWritten(
            file=str(output),
            bytes=len(text.encode()),
            figures=figures_on(made),
            measured_points=len(made.measured),
            missing=made.missing,
        )
        sys.stdout.write(dumps(written) + "\n")
    else:
        sys.stdout.write(f"wrote {output}: open it in a browser\n")


def make_report(plan_file: str | None, on: str | None, ram: str | None) -> "Report":
    """Everything on the page of a plan file, or of a plan made now for the machine that `on` names.

    Raises:
        PlanFileError: the file is no plan.
        InputError: `on` names another machine than the plan's.
        PlanningError: nothing fits.
    """
    from glmplan.commands.planned_machine import Recovered, recovered
    from glmplan.commands.report_parts import report_of

    if plan_file is not None:
        from glmplan.commands.launching import load_plan

        plan = load_plan(plan_file)
        there = recovered(plan, on, ram)
    else:
        from glmplan.commands.plan import make_plan
        from glmplan.commands.situation import situation_of

        here = situation_of(on, ram)
        plan = make_plan(here)
        there = Recovered(situation=here, source="this machine" if on is None else f"named by --on {on}")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return report_of(plan, there, written_at=now)
