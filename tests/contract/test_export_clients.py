"""Clients: they are told address, model, lengths and sampling, and where the key is; never the key."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from export_plans import cpu_only, full_gpu, request_of

from glmplan.errors import NotExpressible
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest, Use
from glmplan.launchers.export.formats import FORMATS, check, export
from glmplan.launchers.export.yaml_text import load
from glmplan.launchers.launch import Endpoint

CODING: dict[str, Any] = {"use": Use.CODING}


def sourced(text: str, *names: str) -> list[str]:
    """What a shell has in these variables after reading the file."""
    script = text + "".join(f"\nprintf '%s\\n' \"${name}\"" for name in names)
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=True, timeout=10, env={"PATH": "/bin:/usr/bin"}
    )
    return done.stdout.splitlines()


def test_the_sdk_gets_address_and_some_key() -> None:
    text = export("openai-env", request_of(full_gpu(), port=9000)).text
    assert sourced(text, "OPENAI_BASE_URL", "OPENAI_API_KEY") == ["http://127.0.0.1:9000/v1", "none"]


def test_a_key_is_read_from_its_file_when_the_variables_are_set(tmp_path: Path) -> None:
    key_file = tmp_path / "it's a $key file"
    key_file.write_text("# mine\nsk-secret\nsk-other\n")
    request = request_of(full_gpu(), api_key_file=str(key_file))
    for name, variable in (("openai-env", "OPENAI_API_KEY"), ("claude-code", "ANTHROPIC_AUTH_TOKEN")):
        exported = export(name, request)
        assert "sk-secret" not in exported.text
        assert exported.mode == 0o600
        assert sourced(exported.text, variable) == ["sk-secret"]


def test_claude_code_talks_to_the_anthropic_endpoint_of_the_server() -> None:
    text = export("claude-code", request_of(full_gpu(), **CODING)).text
    names = (
        *("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_DEFAULT_SONNET_MODEL"),
        *("CLAUDE_CODE_ATTRIBUTION_HEADER", "CLAUDE_CODE_AUTO_COMPACT_WINDOW", "CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
    )
    assert sourced(text, *names) == ["http://127.0.0.1:8080", "none", "", "glm-4.7-flash", "0", "65536", "16384"]


def test_opencode_knows_lengths_sampling_and_thoughts() -> None:
    document = json.loads(export("opencode", request_of(full_gpu(), api_key_file="/etc/key", **CODING)).text)
    provider = document["provider"]["glmplan"]
    assert provider["options"] == {"baseURL": "http://127.0.0.1:8080/v1", "apiKey": "{file:/etc/key}"}
    model = provider["models"]["glm-4.7-flash"]
    assert model["limit"] == {"context": 65536, "output": 16384}
    assert model["interleaved"] == {"field": "reasoning_content"}
    assert document["agent"]["build"] == {"temperature": 0.7, "top_p": 1.0}
    assert document["model"] == "glmplan/glm-4.7-flash"


def test_continue_knows_lengths_and_sampling() -> None:
    (model,) = load(export("continue", request_of(full_gpu(), thinking=False, **CODING)).text)["models"]
    assert model["apiBase"] == "http://127.0.0.1:8080/v1"
    assert model["defaultCompletionOptions"] == {
        "contextLength": 65536, "maxTokens": 16384, "temperature": 0.7, "topP": 1.0, "minP": 0.01,
    }  # fmt: skip
    extra = model["requestOptions"]["extraBodyProperties"]
    assert extra == {"chat_template_kwargs": {"enable_thinking": False}}
    with_key = export("continue", request_of(full_gpu(), api_key_file="/etc/key"))
    assert load(with_key.text)["models"][0]["apiKey"] == "${{ secrets.GLMPLAN_API_KEY }}"


def test_the_three_files_of_aider_belong_together() -> None:
    request = request_of(full_gpu(), **CODING)
    conf = load(export("aider", request).text)
    (settings,) = load(export("aider-settings", request).text)
    metadata = json.loads(export("aider-metadata", request).text)
    assert conf["model"] == settings["name"] == next(iter(metadata)) == "openai/glm-4.7-flash"
    assert conf["openai-api-base"] == "http://127.0.0.1:8080/v1"
    assert settings["use_temperature"] == 0.7
    assert settings["extra_params"]["max_tokens"] == metadata[conf["model"]]["max_output_tokens"] == 16384
    assert metadata[conf["model"]]["max_input_tokens"] == 65536


def test_cline_is_told_in_words() -> None:
    text = export("cline", request_of(full_gpu(), **CODING)).text
    assert "Base URL             http://127.0.0.1:8080/v1\n" in text
    assert "Temperature          0.7\n" in text


@pytest.mark.parametrize("name", ["claude-code", "opencode", "cline", "aider"])
def test_agents_with_little_room_are_warned(name: str) -> None:
    assert any("the plan has 32768" in loss for loss in export(name, request_of(cpu_only())).losses)
    assert not any("tokens of context" in loss for loss in export(name, request_of(full_gpu())).losses)


def test_coding_agents_sample_as_coding_agents_by_default() -> None:
    agents = {name for name, known in FORMATS.items() if known.use is Use.CODING}
    assert agents == {"claude-code", "opencode", "continue", "cline", "aider", "aider-settings", "aider-metadata"}


@pytest.mark.parametrize("name", ["opencode", "continue"])
def test_names_that_clients_would_look_up_are_refused(name: str) -> None:
    request = ExportRequest(plan=full_gpu(), endpoint=Endpoint(port=1, alias="{env:HOME}"))
    with pytest.raises(NotExpressible, match=r"cannot hold '\{'"):
        export(name, request)


def test_a_server_elsewhere_is_reached_by_its_address() -> None:
    request = ExportRequest(plan=full_gpu(), endpoint=Endpoint(host="fd00::1", port=1, api_key_file="/k"))
    assert "http://[fd00::1]:1/v1" in export("openai-env", request).text


WRONG: list[tuple[str, str, str]] = [
    ("openai-env", "export OPENAI_API_BASE=x\n", "no client reads OPENAI_API_BASE"),
    ("opencode", '{"models": {}}', "no property 'models' is known"),
    ("opencode", '{"provider": {"a": {"models": {"m": {"limit": {"context": 1}}}}}}', "'output' is missing"),
    (
        "continue",
        "name: x\nversion: 1.0.0\nmodels: [{name: a, provider: openai, model: m, roles: [talk]}]\n",
        "'talk' is none of",
    ),
    ("aider", "modell: x\n", "no property 'modell' is known"),
    ("aider-settings", "- name: x\n  use_temperature: warm\n", "'warm' is no boolean or number"),
    ("aider-metadata", '{"m": {"mode": "chat"}}', "'litellm_provider' is missing"),
    ("cline", "Base URL\n", "no value"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_the_checks_refuse_what_is_wrong(name: str, text: str, said: str) -> None:
    report = check(name, Exported(text=text, suffix=""), Tools())
    assert any(said in problem for problem in report.problems), report
