"""Options of an engine's command line, written down only where this very build lists them."""

from collections.abc import Sequence

from glmplan.engine import Engine
from glmplan.errors import EngineTooOld
from glmplan.noun import noun


@noun
class Knob:
    """One option: spellings by preference, its value, and why a build without it will not do (None: it will)."""

    spellings: tuple[str, ...]
    value: str | None = None
    needed_for: str | None = None


def words(engine: Engine, knobs: Sequence[Knob]) -> list[str]:
    """The command line: the program, then each option that this build has.

    Raises:
        EngineTooOld: the build lacks an option that the plan depends on.
    """
    command = [engine.path]
    for knob in knobs:
        command += _words(knob, engine)
    return command


def _words(knob: Knob, engine: Engine) -> list[str]:
    flag = next((spelling for spelling in knob.spellings if spelling in engine.flags), None)
    if flag is not None:
        return [flag] if knob.value is None else [flag, knob.value]
    if knob.needed_for is None:
        return []
    build = engine.build or engine.version or "unknown"
    message = f"{engine.kind} build {build} has no {knob.spellings[0]}, which the plan needs for {knob.needed_for}"
    raise EngineTooOld(
        message,
        hint=f"update {'llama.cpp' if engine.kind.is_llama_cpp else engine.kind}, or plan again for this build",
        facts={"build": build, "flag": knob.spellings[0], "path": engine.path},
    )
