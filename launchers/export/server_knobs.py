"""The options of a llama-server command line as the exporters write them down."""

from dataclasses import replace
from typing import Final

from glmplan.launchers import llama_server
from glmplan.launchers.export.exported import ExportRequest, model_path
from glmplan.launchers.knobs import Knob
from glmplan.launchers.launch import override_patterns
from glmplan.placement import Placement

# Levels of older builds mean something else, and nobody reads buffer sizes out of an exported server's log.
_LEFT_OUT: Final = frozenset({"--log-verbosity"})


def knobs_of(request: ExportRequest, *, model: str | None = None, host: str | None = None) -> list[Knob]:
    """Every option that serves the plan with a current llama-server, by its preferred spelling.

    Args:
        request: what to export.
        model: where the model file lies for the server, if not where the plan says.
        host: the address it listens on, if not the request's.
    """
    plan = replace(request.plan, model=replace(request.plan.model, file=model or model_path(request.plan)[0]))
    endpoint = replace(request.endpoint, host=host or request.endpoint.host)
    knobs = llama_server.knobs_of(plan, request.llama_server, endpoint, request.defaults.sampling)
    return [knob for knob in knobs if knob.spellings[0] not in _LEFT_OUT] + _thinking(request)


def words_of(knobs: list[Knob]) -> list[str]:
    """The words of a command line."""
    return [word for knob in knobs for word in (knob.spellings[0], *(() if knob.value is None else (knob.value,)))]


def older_knobs(knob: Knob, placement: Placement) -> list[Knob] | None:
    """What builds have that are older than `knob`; None where none of interest is."""
    flag = knob.spellings[0]
    if flag == "--load-mode":
        return llama_server.loading_flags(placement)
    if flag == "--n-cpu-moe":
        patterns = ",".join(f"{pattern}=CPU" for pattern in override_patterns(placement.n_cpu_moe))
        return [Knob(spellings=("--override-tensor",), value=patterns, needed_for="expert offload")]
    return None


def _thinking(request: ExportRequest) -> list[Knob]:
    """Whether the template thinks, and whether earlier thoughts stay in the prompt."""
    knobs: list[Knob] = []
    if not request.thinking:
        knobs.append(Knob(spellings=("--reasoning",), value="off", needed_for="answers without thinking"))
    elif request.defaults.preserve_thinking:
        knobs.append(Knob(spellings=("--reasoning-preserve",)))
    return knobs
