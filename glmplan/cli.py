"""The command line: one Typer application of all commands; of these the one that is asked for is loaded, no other."""

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from glmplan import __version__
from glmplan.boundary import guard

_OTHERS_WRITE: Final = 0o022

# Where each command is, below `glmplan.commands`: a module and a name in it.
COMMANDS: Final = {
    "bench": "bench.bench",
    "cluster": "cluster.app",
    "compare": "compare.compare",
    "demo": "demo.demo",
    "detect": "detect.detect",
    "devices": "devices.devices",
    "doctor": "doctor.doctor",
    "estimate": "estimate.estimate",
    "export": "export.export",
    "fetch": "fetch.fetch",
    "inspect": "inspect.inspect",
    "logs": "engines.logs",
    "models": "models.models",
    "plan": "plan.plan",
    "rehearse": "rehearse.rehearse",
    "report": "report.report",
    "run": "run.run",
    "status": "engines.status",
    "stop": "engines.stop",
    "tune": "tune.tune",
    "what-if": "what_if.what_if",
}


def application(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with these commands; their modules are loaded now."""
    app = typer.Typer(
        name="glmplan",
        help="Plan, launch and measure GLM-4.7-Flash on your own hardware.",
        add_completion=False,
        rich_markup_mode=None,  # plain help: rich would cost a third of the start-up
        pretty_exceptions_enable=False,
    )
    app.callback()(root)
    for name in names:
        module, _, attribute = COMMANDS[name].partition(".")
        command: Any = getattr(import_module(f"glmplan.commands.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command(name)(command)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"glmplan {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Plan, launch and measure GLM-4.7-Flash on your own hardware."""


def main() -> None:
    """Entry point of the console script."""
    words = sys.argv[1:] or ["--help"]
    asked = words[:1] if words[0] in COMMANDS else COMMANDS
    # Whatever the umask allows: nothing that glmplan or an engine of its writes can be changed by others.
    os.umask(os.umask(_OTHERS_WRITE) | _OTHERS_WRITE)
    sys.exit(guard(lambda: application(asked)(words, prog_name="glmplan", standalone_mode=False), words))
