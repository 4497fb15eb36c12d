"""Coding agents of the terminal: Claude Code through the Anthropic endpoint, and Aider's three files."""

import json
from typing import Any, Final

from glmplan.launchers.export import yaml_text
from glmplan.launchers.export.clients import agent_losses, exports, key_of
from glmplan.launchers.export.exported import Exported, ExportRequest, applying, comments
from glmplan.launchers.export.quoting import shell

_SETTINGS: Final = ".aider.model.settings.yml"
_METADATA: Final = ".aider.model.metadata.json"


def claude_code(request: ExportRequest) -> Exported:
    """Variables that make Claude Code talk to /v1/messages of this server; the URL has no /v1."""
    alias, losses = shell(request.endpoint.alias), _claude_losses(request)
    variables = {
        "ANTHROPIC_BASE_URL": shell(request.endpoint.url),
        "ANTHROPIC_AUTH_TOKEN": key_of(request),
        "ANTHROPIC_API_KEY": "''",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": alias,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": alias,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": alias,
        "CLAUDE_CODE_SUBAGENT_MODEL": alias,
        # This header changes with every request and would spoil the prompt cache.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(request.placement.n_ctx),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(request.max_new_tokens),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    text = comments(request, losses, also=("then: claude --model " + request.endpoint.alias,)) + exports(variables)
    return Exported(text=text, suffix=".env.sh", losses=losses)


def _claude_losses(request: ExportRequest) -> tuple[str, ...]:
    sampling = request.defaults.sampling
    return agent_losses(request) + applying({
        f"sampling: the server's defaults hold (temperature {sampling.temperature:g}, top_p {sampling.top_p:g})": True
    })  # fmt: skip


def aider(request: ExportRequest) -> Exported:
    """.aider.conf.yml: the server and the model, by its name in the other two files."""
    name = _model(request)
    document = {
        "model": name,
        "weak-model": name,
        "editor-model": name,
        "openai-api-base": f"{request.endpoint.url}/v1",
        "model-settings-file": _SETTINGS,
        "model-metadata-file": _METADATA,
        "show-model-warnings": False,
    }
    losses = agent_losses(request)
    note = f"export OPENAI_API_KEY={key_of(request)}; beside it belong aider-settings and aider-metadata"
    return Exported(
        text=comments(request, losses, also=(note,)) + yaml_text.dump(document),
        suffix=".yml",
        losses=losses,
    )


def aider_settings(request: ExportRequest) -> Exported:
    """.aider.model.settings.yml: sampling and answer length."""
    sampling = request.defaults.sampling
    extra: dict[str, Any] = {"top_p": sampling.top_p, "max_tokens": request.max_new_tokens}
    body: dict[str, Any] = {"min_p": sampling.min_p}
    if not request.thinking:
        body["chat_template_kwargs"] = {"enable_thinking": False}
    entry = {
        "name": _model(request),
        "edit_format": "diff",
        "use_temperature": sampling.temperature,
        "extra_params": {**extra, "extra_body": body},
    }
    return Exported(text=comments(request) + yaml_text.dump_list([entry]), suffix=".yml")


def aider_metadata(request: ExportRequest) -> Exported:
    """.aider.model.metadata.json: lengths and prices of the model, which has none."""
    entry = {
        "max_input_tokens": request.placement.n_ctx,
        "max_output_tokens": request.max_new_tokens,
        "max_tokens": request.max_new_tokens,
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
    }
    return Exported(text=json.dumps({_model(request): entry}, indent=2, ensure_ascii=False) + "\n", suffix=".json")


def _model(request: ExportRequest) -> str:
    return f"openai/{request.endpoint.alias}"
