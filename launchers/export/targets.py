"""The facts of `targets.yaml`, read once."""

import functools
from pathlib import Path
from typing import Any

from glmplan.launchers.export import yaml_text
from glmplan.launchers.launch import Sampling
from glmplan.noun import noun


@noun
class UseDefaults:
    """What the model's developers advise for one use; `preserve_thinking`: earlier thoughts stay."""

    sampling: Sampling
    max_new_tokens: int
    preserve_thinking: bool


@functools.cache
def facts() -> dict[str, Any]:
    """The whole file; blocks by target."""
    document: dict[str, Any] = yaml_text.load(Path(__file__).with_name("targets.yaml").read_text(encoding="utf-8"))
    return document


def of(target: str) -> dict[str, Any]:
    """The block of one target."""
    block: dict[str, Any] = facts()[target]
    return block


def use_defaults(use: str) -> UseDefaults:
    """The advice for `general` or `coding`."""
    advice = of("sampling")[use]
    return UseDefaults(
        sampling=Sampling(
            temperature=advice["temperature"],
            top_p=advice["top_p"],
            min_p=advice["min_p"],
            repeat_penalty=advice["repeat_penalty"],
        ),
        max_new_tokens=advice["max_new_tokens"],
        preserve_thinking=advice["preserve_thinking"],
    )


def llama_server_options() -> dict[str, str | None]:
    """Options of a current llama-server that plans use, each with the variable that sets it."""
    options: dict[str, str | None] = of("llama_server")["options"]
    return options
