"""Clients of the served model: variables of the OpenAI SDK, and editors that speak its protocol.

No file holds a key: they name the key file, or a variable of the person who uses them.
"""

import json
from typing import Any, Final

from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
)
from glmplan.launchers.export.quoting import key_in_shell, refuse_characters, shell

_NO_KEY: Final = "none"  # clients want some key, servers without keys take any
_VARIABLE: Final = "GLMPLAN_API_KEY"
_NAME: Final = "GLM-4.7-Flash"


def openai(request: ExportRequest) -> Exported:
    """Variables of the OpenAI SDKs, for `. FILE` in a shell."""
    lines = {"OPENAI_BASE_URL": shell(f"{request.endpoint.url}/v1"), "OPENAI_API_KEY": key_of(request)}
    sampling = request.defaults.sampling
    losses = (
        f"sampling and thinking: requests must say so (temperature {sampling.temperature:g}, top_p {sampling.top_p:g})",
    )
    text = comments(request, losses, also=(f"model name: {request.endpoint.alias}",)) + exports(lines)
    return Exported(text=text, suffix=".env.sh", losses=losses)


def opencode(request: ExportRequest) -> Exported:
    """opencode.json: a provider with the one model, and the sampling of its agents."""
    endpoint, sampling, alias = request.endpoint, request.defaults.sampling, _whole(request.endpoint.alias, "opencode")
    model: dict[str, Any] = {
        "name": _NAME,
        "reasoning": request.thinking,
        "tool_call": True,
        "temperature": True,
        "limit": {"context": request.placement.n_ctx, "output": request.max_new_tokens},
    }
    if request.thinking and request.defaults.preserve_thinking:
        model["interleaved"] = {"field": "reasoning_content"}
    key = f"{{file:{_whole(endpoint.api_key_file, 'opencode')}}}" if endpoint.api_key_file else _NO_KEY
    agent = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    document = {
        "$schema": "https://opencode.ai/config.json",
        "model": f"glmplan/{alias}",
        "small_model": f"glmplan/{alias}",
        "provider": {
            "glmplan": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "glmplan (local)",
                "options": {"baseURL": f"{endpoint.url}/v1", "apiKey": key},
                "models": {alias: model},
            }
        },
        "agent": {"build": agent, "plan": agent},
    }
    return Exported(
        text=json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        suffix=".json",
        losses=agent_losses(request),
    )


def continue_config(request: ExportRequest) -> Exported:
    """config.yaml of Continue: a model for chat, edit and apply."""
    endpoint, sampling = request.endpoint, request.defaults.sampling
    model: dict[str, Any] = {
        "name": f"{_NAME} (local)",
        "provider": "openai",
        "model": _whole(endpoint.alias, "Continue"),
        "apiBase": f"{endpoint.url}/v1",
        "apiKey": f"${{{{ secrets.{_VARIABLE} }}}}" if endpoint.api_key_file else _NO_KEY,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": {
            "contextLength": request.placement.n_ctx,
            "maxTokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "minP": sampling.min_p,
        },
    }
    if not request.thinking:
        model["requestOptions"] = {"extraBodyProperties": {"chat_template_kwargs": {"enable_thinking": False}}}
    document = {"name": "glmplan", "version": "1.0.0", "schema": "v1", "models": [model]}
    note = f"{_VARIABLE} goes into ~/.continue/.env: {_VARIABLE}=the key"
    text = comments(request, also=applying({note: endpoint.api_key_file is not None})) + yaml_text.dump(document)
    return Exported(text=text, suffix=".yaml")


def cline(request: ExportRequest) -> Exported:
    """What to enter in Cline's settings panel: the extension reads no file."""
    endpoint, sampling = request.endpoint, request.defaults.sampling
    key = f"the content of {endpoint.api_key_file}" if endpoint.api_key_file else f"{_NO_KEY} (any text will do)"
    rows = {
        "API Provider": "OpenAI Compatible",
        "Base URL": f"{endpoint.url}/v1",
        "API Key": key,
        "Model ID": endpoint.alias,
        "Context Window Size": str(request.placement.n_ctx),
        "Max Output Tokens": str(request.max_new_tokens),
        "Temperature": f"{sampling.temperature:g}",
        "Supports Images": "no",
    }
    losses = (
        *agent_losses(request),
        f"top_p {sampling.top_p:g}: Cline has no field for it, the server's default holds",
    )
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {' '.join(value.split())}" for name, value in rows.items()]
    text = comments(request, losses, also=("enter in Cline's settings, or answer `cline auth` with it",))
    return Exported(text=text + "\n".join(lines) + "\n", suffix=".txt", losses=losses)


def exports(lines: dict[str, str]) -> str:
    """Assignments for a shell; the values are quoted already."""
    return "".join(f"export {name}={value}\n" for name, value in lines.items())


def key_of(request: ExportRequest) -> str:
    """The API key as a word of a POSIX shell."""
    path = request.endpoint.api_key_file
    return key_in_shell(path) if path else _NO_KEY


def agent_losses(request: ExportRequest) -> tuple[str, ...]:
    """What a coding agent will feel."""
    wanted, n_ctx = targets.of("clients")["agent_context_tokens"], request.placement.n_ctx
    return applying({
        f"room: coding agents want {wanted} tokens of context, the plan has {n_ctx}": n_ctx < wanted,
        "answers without thinking: the server decides (export it with --no-thinking as well)": not request.thinking,
    })  # fmt: skip


def _whole(value: str, client: str) -> str:
    """`value`, if `client` does not take it for a reference to something else."""
    return refuse_characters(value, "{}", f"a configuration of {client}")
