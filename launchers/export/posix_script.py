"""The standalone launch script: a POSIX shell script that needs nothing but llama-server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from glmplan.launchers.export.exported import (
    EXECUTABLE,
    Exported,
    ExportRequest,
    comments,
    is_file,
    published_name,
)
from glmplan.launchers.export.quoting import shell
from glmplan.launchers.export.server_knobs import knobs_of, older_knobs
from glmplan.launchers.knobs import Knob
from glmplan.placement import Placement
from glmplan.plan import Plan
from glmplan.units import MIB

# A file that is known by its quantisation only may differ by this much: publishers choose types per tensor.
_SIZE_TOLERANCE: Final = 0.1
_PLACE: Final = re.compile(r"@([A-Z_]+)@")
# Values that the script's own options can change.
_VARIABLES: Final = {"--model": '"$model"', "--host": '"$host"', "--port": '"$port"', "--alias": '"$alias"'}


def script(request: ExportRequest) -> Exported:
    """A shell script that checks the program, its options, the model and the port, then becomes the server."""
    plan = request.plan
    smallest, largest = size_range(request)
    values = {
        "HEAD": comments(request).rstrip("\n"),
        "MODEL": shell(plan.model.file if is_file(plan.model.file) else ""),
        "MODEL_NAME": shell(published_name(plan)),
        "MIN_BYTES": str(smallest),
        "MAX_BYTES": str(largest),
        "HOST_MIB": str(host_bytes(plan) // MIB),
        "HOST": shell(request.endpoint.host),
        "PORT": str(request.endpoint.port),
        "ALIAS": shell(request.endpoint.alias),
        "LIMITS": _limits(plan.placement),
        "KNOBS": "\n".join(_steps(request)),
    }
    return Exported(text=fill("launch.sh", values), suffix=".sh", mode=EXECUTABLE, losses=script_losses(plan))


def fill(template: str, values: dict[str, str]) -> str:
    """The package's file `template` with each `@NAME@` replaced; what is put in is not looked into again."""
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    return _PLACE.sub(lambda match: values[match[1]], text)


def size_range(request: ExportRequest) -> tuple[int, int]:
    """Bytes a file must have at least and at most to be the plan's."""
    size = request.plan.model.file_bytes
    slack = 0 if request.exact_size else int(size * _SIZE_TOLERANCE)
    return size - slack, size + slack


def host_bytes(plan: Plan) -> int:
    """Main memory the plan takes."""
    return sum(
        device.weights_bytes + device.kv_cache_bytes + device.compute_bytes + device.overhead_bytes
        for device in plan.memory.devices
        if device.id == "host"
    )


def script_losses(plan: Plan) -> tuple[str, ...]:
    """What a launch script cannot know."""
    if is_file(plan.model.file):
        return ()
    return ("the plan names no file on disk: the script asks for --model PATH (or export with --model-file PATH)",)


def _limits(placement: Placement) -> str:
    """What is asked of the system: huge pages, locked memory."""
    pages = "".join(
        f'export {name}="{value}${{{name}:+:${name}}}"  # huge pages, as the plan\n'
        for name, value in placement.variables.items()
    )
    if not placement.use_mlock:
        return pages
    return pages + (
        "\n# Weights are locked in memory.\n"
        "# shellcheck disable=SC3045 # dash, bash and busybox know -l\n"
        "ulimit -l unlimited 2>/dev/null ||\n"
        "    printf 'warning: locked memory is limited (ulimit -l): weights may be swapped out\\n' >&2\n"
    )


def _steps(request: ExportRequest) -> Iterator[str]:
    """One step of the script per option; builds without two younger options get what these replaced."""
    for knob in knobs_of(request):
        flag, older = knob.spellings[0], older_knobs(knob, request.placement)
        if older is None:
            yield from _step(knob)
        else:
            yield from _either(_add(knob, flag), flag, [line for each in older for line in _step(each)])


def _step(knob: Knob) -> Iterator[str]:
    """Take the first spelling this build has; stop when it has none and the plan needs one."""
    *preferred, last = knob.spellings
    for number, flag in enumerate(preferred):
        yield f"{'el' if number else ''}if has {flag}; then"
        yield f"    {_add(knob, flag)}"
    final = [f"need {last} {shell(knob.needed_for)}", _add(knob, last)] if knob.needed_for else _taken(knob, last)
    if not preferred:
        yield from final
    else:
        yield "else"
        yield from (f"    {line}" for line in final)
        yield "fi"


def _taken(knob: Knob, flag: str) -> list[str]:
    return [f"if has {flag}; then {_add(knob, flag)}; fi"]


def _either(add: str, flag: str, otherwise: list[str]) -> Iterator[str]:
    yield f"if has {flag}; then"
    yield f"    {add}"
    if otherwise:
        yield "else"
        yield from (f"    {line}" for line in otherwise)
    yield "fi"


def _add(knob: Knob, flag: str) -> str:
    value = "" if knob.value is None else f" {_VARIABLES.get(flag) or shell(knob.value)}"
    return f'set -- "$@" {flag}{value}'
