"""Exports judged by the compiled engine: llama-server's parser and router, llama-cpp-python's settings model."""

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from export_plans import PLANS, cpu_only, full_gpu, hybrid, is_array, is_object, request_of, with_file

from glmplan.engine import Engine, EngineKind, engine_environment
from glmplan.launchers.export.checks import json_schema
from glmplan.launchers.export.checks.llama_server import version_with
from glmplan.launchers.export.checks.report import Outcome, Tools
from glmplan.launchers.export.checks.router import ask_router
from glmplan.launchers.export.exported import Exported, Use
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.server_knobs import knobs_of
from glmplan.placement import FlashAttention, TensorOverride
from glmplan.profiles.host import LocalHost
from glmplan.profiles.probes.engine import find_engines

pytestmark = pytest.mark.compiled

JUDGED_BY_THE_PARSER = (
    "script", "llama-server", "llama-server-env", "llama-server-ini", "systemd", "launchd", "compose", "quadlet",
    "llama-swap",
)  # fmt: skip
KNOBS: list[dict[str, Any]] = [
    {},
    {"use_mmap": False, "use_mlock": True, "flash_attn": FlashAttention.OFF, "op_offload": False, "load_mtp": True},
    {"n_parallel": 4, "kv_unified": False, "tensor_split": (3.0, 1.0), "repack": False},
    {"override_tensor": (TensorOverride(pattern=r"blk\.(1|2)\.ffn_(up|down)_exps"),)},
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    found = {engine.kind: engine for engine in find_engines(LocalHost())}
    return found[EngineKind.LLAMA_SERVER]


@pytest.mark.parametrize("knobs", KNOBS)
@pytest.mark.parametrize("plan_name", PLANS)
@pytest.mark.parametrize("name", JUDGED_BY_THE_PARSER)
def test_the_real_parser_accepts_what_we_write(
    name: str, plan_name: str, knobs: dict[str, Any], engine: Engine, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    request = request_of(PLANS[plan_name](**knobs), api_key_file=str(key_file), use=Use.CODING)
    report = check(name, export(name, request), Tools(llama_server=engine))
    own = [by for by in report.by if by.startswith("llama-server ")]
    # A key file that is not where the container or service will have it is the only thing this machine cannot know.
    problems = [problem for problem in report.problems if "api-key" not in problem and "failed to open" not in problem]
    assert problems == []
    assert own


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("llama-server", "--fit off", "--fit maybe"),
        ("llama-server-env", "LLAMA_ARG_FIT=off", "LLAMA_ARG_FIT=maybe"),
        ("llama-server-ini", "fit = off", "fitt = off"),
        ("llama-server-ini", "fit = off", "fit = maybe"),
        ("compose", '"off"', '"maybe"'),
        ("systemd", "--fit off", "--fit maybe"),
        ("llama-swap", "--fit off", "--mlock"),
    ],
)
def test_the_real_parser_refuses_what_is_wrong(name: str, old: str, new: str, engine: Engine) -> None:
    exported = export(name, request_of(full_gpu()))
    assert old in exported.text
    spoilt = Exported(text=exported.text.replace(old, new), suffix=exported.suffix)
    assert check(name, spoilt, Tools(llama_server=engine)).problems


@pytest.mark.parametrize(
    "file", ["/m/plain.gguf", '/m/it\'s "the" $HOME model.gguf', "/m/ünï—文 = x.gguf", "/m/a\\b [c].gguf"]
)
@pytest.mark.parametrize("plan_name", PLANS)
def test_the_router_reads_every_value_of_a_preset_whole(
    plan_name: str, file: str, engine: Engine, tmp_path: Path
) -> None:
    request = request_of(with_file(PLANS[plan_name](repack=False), file), thinking=False)
    path = tmp_path / "models.ini"
    path.write_text(export("llama-server-ini", request).text, encoding="utf-8")
    answer = ask_router(engine, path)
    assert not isinstance(answer, Outcome)
    words = answer["glm-4.7-flash"]
    longest = {"--temp": "--temperature"}  # the router writes every option by its last spelling
    for knob in knobs_of(request):
        flag = longest.get(knob.spellings[0], knob.spellings[0])
        if flag not in {"--alias", "--host", "--port", "--cors-origins"}:
            assert flag in words
            assert knob.value is None or words[words.index(flag) + 1] == knob.value


def test_values_that_a_preset_would_cut_are_cut_indeed(engine: Engine, tmp_path: Path) -> None:
    """The reason for refusing them: the router says nothing and takes half."""
    path = tmp_path / "models.ini"
    path.write_text("[m]\nmodel = /m/a;b.gguf\nalias = c#d\n", encoding="utf-8")
    answer = ask_router(engine, path)
    assert not isinstance(answer, Outcome)
    words = answer["m"]
    assert words[words.index("--model") + 1] == "/m/a"


def test_variables_reach_the_engine(engine: Engine, tiny_gguf: Path) -> None:
    """Started with the variables alone, the engine has the plan's settings: it names them when one is wrong."""
    assert version_with(engine, [], {"LLAMA_ARG_CTX_SIZE": "1024"}).returncode == 0
    assert version_with(engine, [], {"LLAMA_ARG_CTX_SIZE": "many"}).returncode == 1
    request = request_of(with_file(cpu_only(n_ctx=512), str(tiny_gguf)))
    text = export("llama-server-env", request).text
    script = f'set -a\n{text}\nexec "$0" --version'
    done = subprocess.run(
        ["sh", "-c", script, engine.path], env={**os.environ, **engine_environment(engine, os.environ)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def settings_model() -> Any:
    return importlib.import_module("llama_cpp.server.settings").ConfigFileSettings


@pytest.mark.parametrize("knobs", KNOBS[:3])
@pytest.mark.parametrize("plan_name", ["full-gpu", "cpu-only"])
def test_the_settings_model_of_llama_cpp_python_accepts_what_we_write(plan_name: str, knobs: dict[str, Any]) -> None:
    request = request_of(PLANS[plan_name](**knobs), use=Use.CODING)
    document = json.loads(export("llama-cpp-python", request).text)
    read = settings_model().model_validate(document)
    told = document["models"][0]
    assert {name: getattr(read.models[0], name) for name in told} == told


def test_the_shipped_schema_is_the_settings_model_of_this_version() -> None:
    def bare(value: Any, *, names: bool = False) -> Any:
        dropped = {"description", "title", "default", "$comment"}
        if is_object(value):
            below = {"properties", "$defs"}
            return {k: bare(v, names=k in below) for k, v in value.items() if names or k not in dropped}
        return [bare(item) for item in value] if is_array(value) else value

    assert bare(json_schema.schema("llama-cpp-python")) == bare(settings_model().model_json_schema())


def test_hybrid_plans_stay_hybrid_everywhere(engine: Engine) -> None:
    """Expert offload is in every file that llama-server reads, in its own words."""
    request = request_of(hybrid())
    for name in JUDGED_BY_THE_PARSER:
        text = export(name, request).text
        assert "n-cpu-moe" in text or "N_CPU_MOE" in text, name
    assert "--n-cpu-moe" in engine.flags
