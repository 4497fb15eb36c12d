"""`glmplan inspect`: what a model file says about itself, read from its header."""

import sys
from typing import Annotated

import typer


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL|hf:REPO/FILE|ollama:TAG",
            help="A GGUF file (of a split one the first part), an http(s) address, or a name in a model store.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/inspect/1).")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor with its type and bytes.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
) -> None:
    """Show what a model file holds, from its header: a few megabytes are read, never the weights.

    Copies that Hugging Face tools, llama.cpp, LM Studio or Ollama already keep on this machine come first.
    HF_TOKEN and HF_ENDPOINT are honoured.
    """
    from glmplan.profiles.gguf import inspect_model
    from glmplan.profiles.locate import this_machine

    inspection = inspect_model(model, access=this_machine(offline=offline), with_tensors=tensors)
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(inspection) + "\n")
        return
    from glmplan.render.model import show_inspection

    show_inspection(inspection)
