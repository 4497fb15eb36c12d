"""`glmplan fetch`: the model file, whole and verified, where every tool finds it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.commands.fetching import bring, is_here, wanted_by, wanted_quant, wanted_reference
from glmplan.errors import InputError

if TYPE_CHECKING:
    from glmplan.fetched import FetchReport


def fetch(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLAN | hf:REPO/FILE]", help="A plan file, - for standard input, or a file of the hub; none: plan."
        ),
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="The published file of a quantisation such as q4_K_M or unsloth/q6_K.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The catalog's model that --quant is of.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only say where a copy is; use no network.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Ask the hub for the newest version even if a copy is here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/fetch/1).")] = False,
) -> None:
    """Get the model file into the Hugging Face cache, resumed and verified; a copy that is here is used in place."""
    if what is not None and quant is not None:
        message = "a file and a quantisation are two ways to say what to fetch"
        raise InputError(message, hint="give one of them")
    if model is not None and quant is None:
        message = "--model says which model --quant is of, and there is no --quant"
        raise InputError(message, hint=f"glmplan fetch --model {model} --quant q4_K_M")
    if quant is not None:
        report = bring(wanted_quant(quant, model), offline=offline, update=update)
    elif what is not None and what.startswith(("hf:", "http://", "https://")):
        report = bring(wanted_reference(what), offline=offline, update=update)
    else:
        report = _for_plan(what, offline=offline, update=update)
    _show(report, as_json=as_json)


def _for_plan(plan_file: str | None, *, offline: bool, update: bool) -> "FetchReport":
    from glmplan.commands.launching import load_plan
    from glmplan.fetched import FetchReport
    from glmplan.profiles.published import local_files

    model = load_plan(plan_file).model
    if is_here(model) and not update:
        return FetchReport(path=model.file, store=None, files=local_files(Path(model.file)))
    return bring(wanted_by(model), offline=offline, update=update)


def _show(report: "FetchReport", *, as_json: bool) -> None:
    """The path alone on standard output, so that a script can use it; the rest beside it."""
    from glmplan.render.fetch import report_lines

    sys.stderr.write("\n".join(report_lines(report)) + "\n")
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(report) + "\n")
    else:
        sys.stdout.write(report.path + "\n")
