"""`glmplan models`: the catalog that `--model` and `--quant` read."""

from typing import Annotated

import typer


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model, with its files and figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/models/1).")] = False,
) -> None:
    """List the models `--model` knows and the files `--quant` names, with sizes and sources."""
    from glmplan.profiles.model_rows import model_listing

    found = model_listing(name)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(found))
        return
    from glmplan.render.models import show_models

    show_models(found, with_files=name is not None)
