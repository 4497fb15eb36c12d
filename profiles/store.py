"""The shipped YAML files, read safely and once per process."""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from glmplan.errors import ProfileError


def parse_yaml(text: str, *, origin: str) -> Any:  # noqa: ANN401 - YAML is what it is
    """The content of a YAML document, through the safe loader (in C where it is compiled in).

    Raises:
        ProfileError: malformed, with the line.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        message = f"{origin}: not YAML: {error}"
        raise ProfileError(message, hint="fix the line it names") from error


@cache
def shipped(package: str, name: str) -> Mapping[str, Any]:
    """The shipped document `name` of `glmplan.profiles.<package>`; treat it as read-only."""
    text = resources.files(f"glmplan.profiles.{package}").joinpath(name).read_text("utf-8")
    document: Mapping[str, Any] = parse_yaml(text, origin=f"{package}/{name}")
    return document


def shipped_text(package: str, name: str) -> str:
    """The shipped file `name` of `glmplan.profiles.<package>` as text."""
    return resources.files(f"glmplan.profiles.{package}").joinpath(name).read_text("utf-8")


@cache
def shipped_names(package: str, suffix: str) -> tuple[str, ...]:
    """Names, without `suffix`, of the shipped files of `glmplan.profiles.<package>`, sorted."""
    files = (entry.name for entry in resources.files(f"glmplan.profiles.{package}").iterdir())
    return tuple(sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix)))
