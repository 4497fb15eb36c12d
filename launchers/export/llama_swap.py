"""llama-swap: a proxy that starts llama-server when its model is asked for."""

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    model_path,
)
from glmplan.launchers.export.quoting import refuse_characters, shell
from glmplan.launchers.export.server_knobs import knobs_of
from glmplan.launchers.knobs import Knob

# llama-swap reads `${NAME}` as a macro wherever it stands, and there is no way to escape it.
_MACRO = "${"
# It keeps the key itself, and clients talk to it, not to the server behind it.
_PROXYS: frozenset[str] = frozenset({"--api-key-file", "--cors-origins"})


def config(request: ExportRequest) -> Exported:
    """config.yaml with one model; requests may ask for it with tools or without thinking by other names.

    Raises:
        NotExpressible: a value holds `${` or a line break, which llama-swap would change.
    """
    facts, endpoint, alias = targets.of("llama_swap"), request.endpoint, request.endpoint.alias
    path, losses = model_path(request.plan)
    knobs = knobs_of(request, model=path, host="127.0.0.1")
    command = [shell(request.server or "llama-server"), *(_option(knob) for knob in knobs if _is_ours(knob))]
    document = {
        "healthCheckTimeout": facts["health_check_timeout_s"],
        "models": {
            _whole(alias): {
                "name": "GLM-4.7-Flash",
                "cmd": "\n".join(command),
                "env": ["CUDA_DEVICE_ORDER=PCI_BUS_ID", *map("=".join, request.placement.variables.items())],
                "checkEndpoint": targets.of("llama_server")["health"],
                "ttl": facts["idle_unload_s"],
                "concurrencyLimit": max(10, 2 * request.placement.n_parallel),
                "capabilities": {"in": ["text"], "out": ["text"], "tools": True, "context": request.placement.n_ctx},
                "filters": {"setParamsByID": _profiles(request)},
            }
        },
    }
    if endpoint.api_key_file is not None:
        document["apiKeys"] = ["${env.GLMPLAN_API_KEY}"]
    start = f"start with: llama-swap --config FILE --listen {endpoint.host}:{endpoint.port}"
    key = 'with GLMPLAN_API_KEY="$(cat ' + shell(endpoint.api_key_file or "") + ')" in its environment'
    head = comments(request, losses, also=(start, *applying({key: endpoint.api_key_file is not None})))
    schema = f"# yaml-language-server: $schema={facts['schema_url']}\n"
    return Exported(
        text=schema + head + yaml_text.dump(document),
        suffix=".yaml",
        losses=losses,
    )


def _is_ours(knob: Knob) -> bool:
    return knob.spellings[0] not in _PROXYS


def _option(knob: Knob) -> str:
    flag = knob.spellings[0]
    if knob.value is None:
        return flag
    return f"{flag} ${{PORT}}" if flag == "--port" else f"{flag} {shell(_whole(knob.value))}"


def _whole(value: str) -> str:
    """`value`, if llama-swap leaves it as it is.

    Raises:
        NotExpressible: it has a line break or begins a macro.
    """
    refuse_characters(value, "\r\n", "a llama-swap configuration")
    if _MACRO in value:
        message = f"llama-swap would read a macro in {value!r}"
        raise NotExpressible(message, hint="rename the file", facts={"value": value})
    return value


def _profiles(request: ExportRequest) -> dict[str, dict[str, object]]:
    """Other names of the same loaded model: with the sampling for tools, and without thinking."""
    coding = targets.use_defaults("coding").sampling
    sampling = {"temperature": coding.temperature, "top_p": coding.top_p, "min_p": coding.min_p}
    profiles: dict[str, dict[str, object]] = {
        "${MODEL_ID}:tools": {**sampling, "chat_template_kwargs": {"clear_thinking": False}}
    }
    if request.thinking:
        profiles["${MODEL_ID}:nothink"] = {"chat_template_kwargs": {"enable_thinking": False}}
    return profiles
