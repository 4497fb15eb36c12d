"""llama-server's own formats: a command line, an environment file and a preset file of its router."""

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    model_path,
    without_huge_pages,
)
from glmplan.launchers.export.quoting import env_file, ini, shell
from glmplan.launchers.export.server_knobs import knobs_of
from glmplan.launchers.knobs import Knob

# The router gives these to its children itself.
_ROUTERS: frozenset[str] = frozenset({"--alias", "--host", "--port", "--api-key-file", "--cors-origins"})


def command(request: ExportRequest) -> Exported:
    """The command line for a POSIX shell, one option a line."""
    losses = model_path(request.plan)[1] + applying(without_huge_pages(request.placement))
    words = [shell(request.server or "llama-server"), *(_option(knob) for knob in knobs_of(request))]
    return Exported(text=comments(request, losses) + " \\\n  ".join(words) + "\n", suffix=".txt", losses=losses)


def _option(knob: Knob) -> str:
    return knob.spellings[0] if knob.value is None else f"{knob.spellings[0]} {shell(knob.value)}"


def environment(request: ExportRequest) -> Exported:
    """LLAMA_ARG_* variables: for `. FILE` with `set -a`, systemd's EnvironmentFile= and compose's env_file."""
    placement = request.placement
    knobs = knobs_of(request)
    lines = [line for knob in knobs if (line := _variable(knob))]
    lines += ["=".join(pair) for pair in placement.variables.items()]
    quoted = any("'" in line or '"' in line for line in lines)
    losses = model_path(request.plan)[1] + applying({
        f"{placement.n_threads_batch} threads for prefill: no variable, add --threads-batch "
        f"{placement.n_threads_batch} to the command line": placement.n_threads_batch != placement.n_threads,
        "op_offload off: no variable, add --no-op-offload to the command line": not placement.op_offload,
        "quotes: `docker run --env-file` would take them as part of the values": quoted,
    })  # fmt: skip
    return Exported(text=comments(request, losses) + "\n".join(lines) + "\n", suffix=".env", losses=losses)


def _variable(knob: Knob) -> str | None:
    name = targets.llama_server_options()[knob.spellings[0]]
    if name is None:
        return None
    if "=" in name:  # an option that switches off
        return name
    return f"{name}={env_file('1' if knob.value is None else knob.value)}"


def preset(request: ExportRequest) -> Exported:
    """A section of `llama-server --models-preset FILE`: its router starts the model when it is asked for."""
    alias = request.endpoint.alias
    if not alias.isprintable() or any(char in "[]:" for char in alias) or alias.strip() != alias or not alias:
        message = f"a preset file cannot name a section {alias!r}"
        raise NotExpressible(message, hint="--alias with letters, digits, dots and dashes", facts={"alias": alias})
    losses = model_path(request.plan)[1] + applying(without_huge_pages(request.placement))
    knobs = [knob for knob in knobs_of(request) if knob.spellings[0] not in _ROUTERS]
    lines = ["version = 1", "", f"[{alias}]", *(_entry(knob) for knob in knobs)]
    start = " ".join([
        "start with: llama-server --models-preset FILE --models-max 1 --cors-origins localhost",
        f"--host {request.endpoint.host} --port {request.endpoint.port}",
        *(["--api-key-file", request.endpoint.api_key_file] if request.endpoint.api_key_file else []),
    ])  # fmt: skip
    head = comments(request, losses, also=(start,))
    return Exported(text=head + "\n".join(lines) + "\n", suffix=".ini", losses=losses)


def _entry(knob: Knob) -> str:
    value = "true" if knob.value is None else ini(knob.value)
    return f"{knob.spellings[0].removeprefix('--')} = {value}"
