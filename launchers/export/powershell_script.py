"""The standalone launch script for PowerShell: the same checks and steps as the POSIX one."""

from collections.abc import Iterator
from typing import Final

from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    is_file,
    published_name,
)
from glmplan.launchers.export.posix_script import fill, script_losses, size_range
from glmplan.launchers.export.quoting import BYTE_ORDER_MARK, powershell
from glmplan.launchers.export.server_knobs import knobs_of, older_knobs
from glmplan.launchers.knobs import Knob

_VARIABLES: Final = {"--model": "$Model", "--host": "$listenOn", "--port": '"$Port"', "--alias": "$alias"}


def script(request: ExportRequest) -> Exported:
    """A PowerShell script for Windows (5.1) and PowerShell 7.

    Raises:
        NotExpressible: a value has a double quote or a control character: no version passes these on alike.
    """
    plan = request.plan
    smallest, largest = size_range(request)
    losses = script_losses(plan) + applying({
        "weights locked in memory: granted by a user right only": request.placement.use_mlock,
        "buffers in huge pages: the script asks Windows for none": request.placement.huge_pages,
    })  # fmt: skip
    values = {
        "HEAD": comments(request, losses).rstrip("\n"),
        "MODEL": powershell(plan.model.file if is_file(plan.model.file) else ""),
        "MODEL_NAME": powershell(published_name(plan)),
        "MIN_BYTES": str(smallest),
        "MAX_BYTES": str(largest),
        "HOST": powershell(request.endpoint.host),
        "PORT": str(request.endpoint.port),
        "ALIAS": powershell(request.endpoint.alias),
        "KNOBS": "\n".join(_steps(request)),
    }
    text = fill("launch.ps1", values)
    return Exported(text=text if text.isascii() else BYTE_ORDER_MARK + text, suffix=".ps1", losses=losses)


def _steps(request: ExportRequest) -> Iterator[str]:
    for knob in knobs_of(request):
        flag, older = knob.spellings[0], older_knobs(knob, request.placement)
        if older is None:
            yield from _step(knob)
        else:
            yield from _either(knob, flag, [line for each in older for line in _step(each)])


def _step(knob: Knob) -> Iterator[str]:
    first, *others = knob.spellings
    if others:
        rest = Knob(spellings=tuple(others), value=knob.value, needed_for=knob.needed_for)
        yield from _either(knob, first, list(_step(rest)))
    elif knob.needed_for:
        yield f"Assert-Option '{first}' {powershell(knob.needed_for)}"
        yield _add(knob, first)
    else:
        yield f"if (Test-Option '{first}') {{ {_add(knob, first)} }}"


def _either(knob: Knob, flag: str, otherwise: list[str]) -> Iterator[str]:
    yield f"if (Test-Option '{flag}') {{"
    yield f"    {_add(knob, flag)}"
    if otherwise:
        yield "} else {"
        yield from (f"    {line}" for line in otherwise)
    yield "}"


def _add(knob: Knob, flag: str) -> str:
    if knob.value is None:
        return f"$words.Add('{flag}')"
    value = _VARIABLES.get(flag) or powershell(knob.value)
    return f"$words.AddRange([string[]]('{flag}', {value}))"
