"""`glmplan devices`: the catalog that `--on` reads."""

from typing import Annotated

import typer


def devices(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only devices whose id or name holds this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/devices/1).")] = False,
) -> None:
    """List the devices `--on` knows, with memory, bandwidth and sources."""
    from glmplan.profiles.device_listing import listing

    found = listing(name)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(found))
        return
    from glmplan.render.devices import show_devices

    show_devices(found)
