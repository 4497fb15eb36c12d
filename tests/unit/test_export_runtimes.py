"""Other runtimes: what of a plan they are told, what they cannot be told, and which plans they cannot run."""

import dataclasses
import json
import shlex
from typing import Any

import pytest
from export_plans import PLANS, by_tensor, cpu_only, full_gpu, hybrid, request_of, with_file

from glmplan.errors import NotExpressible
from glmplan.launchers.export import lm_studio, targets
from glmplan.launchers.export.checks import grammars
from glmplan.launchers.export.checks.configurations import options_of
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest, Use
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.weights import stand_in
from glmplan.launchers.export.yaml_text import load
from glmplan.launchers.launch import Endpoint
from glmplan.placement import FlashAttention, TensorOverride
from glmplan.plan import Plan, PlannedGpu
from glmplan.units import GIB


def on(plan: Plan, *gpus: str, gib: int = 80, os: str = "Linux") -> Plan:
    """`plan` on these GPUs."""
    planned = tuple(PlannedGpu(id=f"gpu{i}", name=name, memory_total_bytes=gib * GIB) for i, name in enumerate(gpus))
    return dataclasses.replace(plan, machine=dataclasses.replace(plan.machine, os=os, gpus=planned))


def of_type(plan: Plan, quantization: str, gigabytes: float) -> Plan:
    """`plan` with a file of another quantisation."""
    model = dataclasses.replace(plan.model, quantization=quantization, file_bytes=int(gigabytes * 1e9))
    return dataclasses.replace(plan, model=model)


def mac(**knobs: Any) -> Plan:
    return on(full_gpu(**knobs), "Apple M4 Max", gib=64, os="macOS 26")


# llama-cpp-python


@pytest.mark.parametrize("name", ["full-gpu", "cpu-only"])
def test_llama_cpp_python_is_told_its_knobs(name: str) -> None:
    plan = PLANS[name](cache_type_k="q8_0", cache_type_v="q8_0", tensor_split=(3.0, 1.0))
    placement = plan.placement
    document = json.loads(export("llama-cpp-python", request_of(plan, port=8000)).text)
    (model,) = document["models"]
    told = {
        "model": plan.model.file, "n_ctx": placement.n_ctx, "n_gpu_layers": placement.n_gpu_layers,
        "n_batch": placement.n_batch, "n_ubatch": placement.n_ubatch, "n_threads": placement.n_threads,
        "n_threads_batch": placement.n_threads_batch, "type_k": 8, "type_v": 8, "flash_attn": True,
        "use_mmap": True, "use_mlock": False, "tensor_split": [3.0, 1.0],
    }  # fmt: skip
    assert {key: model[key] for key in told} == told
    assert (document["host"], document["port"]) == ("127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("knobs", "lost"),
    [
        ({"n_parallel": 4}, "4 slots"),
        ({"repack": False}, "repacking off"),
        ({"op_offload": False}, "op_offload off"),
        ({"load_mtp": True}, "multi-token prediction"),
        ({"cache_ram_bytes": 7}, "a prompt cache of 7 bytes"),
        ({"flash_attn": FlashAttention.AUTO}, "switched on"),
    ],
)
def test_what_llama_cpp_python_cannot_be_told_is_told_to_the_user(knobs: dict[str, Any], lost: str) -> None:
    losses = export("llama-cpp-python", request_of(full_gpu(**knobs))).losses
    assert any(lost in loss for loss in losses)


def test_llama_cpp_python_cannot_keep_experts_apart() -> None:
    for plan in (hybrid(), full_gpu(override_tensor=(TensorOverride(pattern="x"),))):
        with pytest.raises(NotExpressible, match="llama-cpp-python cannot run this plan"):
            export("llama-cpp-python", request_of(plan))


@pytest.mark.parametrize(
    ("wanted", "switches"),
    [({}, None), ({"use": Use.CODING}, {"clear_thinking": False}), ({"thinking": False}, {"enable_thinking": False})],
)
def test_template_switches_go_along(wanted: dict[str, Any], switches: dict[str, bool] | None) -> None:
    (model,) = json.loads(export("llama-cpp-python", request_of(full_gpu(), **wanted)).text)["models"]
    assert model.get("chat_template_kwargs") == switches
    options = load(export("vllm-config", request_of(full_gpu(), **wanted)).text)
    told = options.get("default-chat-template-kwargs")
    assert (json.loads(told) if told else None) == switches


# LM Studio


@pytest.mark.parametrize("name", PLANS)
def test_lm_studio_is_told_the_same_in_both_files(name: str) -> None:
    plan = PLANS[name]()
    request = request_of(plan)
    portable = load(export("lm-studio", request).text)["config"]
    own = json.loads(export("lm-studio-defaults", request).text)
    assert {kind: portable[kind] for kind in ("operation", "load")} == {
        kind: own[kind] for kind in ("operation", "load")
    }
    fields = {field["key"]: field["value"] for field in own["load"]["fields"]}
    placement = plan.placement
    assert fields["llm.load.contextLength"] == placement.n_ctx
    assert fields["llm.load.llama.evalBatchSize"] == placement.n_batch
    assert fields["llm.load.llama.physicalBatchSize"] == placement.n_ubatch
    assert fields["llm.load.llama.autoFit"] is False
    kv = {"checked": placement.cache_type_k != "f16", "value": placement.cache_type_k}
    assert fields["llm.load.llama.kCacheQuantizationType"] == fields["llm.load.llama.vCacheQuantizationType"] == kv


@pytest.mark.parametrize("layers", range(49))
def test_a_ratio_means_the_planned_number_of_layers(layers: int) -> None:
    ratio = lm_studio.offload_ratio(full_gpu(n_gpu_layers=layers))
    value = {"max": 1.0, "off": 0.0}.get(ratio, ratio) if isinstance(ratio, str) else ratio
    assert round(float(value) * 48) == layers
    experts = lm_studio.expert_ratio(full_gpu(n_cpu_moe=min(layers, 47)))
    value = {"max": 1.0, "off": 0.0}.get(experts, experts) if isinstance(experts, str) else experts
    assert round(float(value) * 47) == min(layers, 47)


def test_experts_by_tensor_become_whole_layers_where_only_layers_are_counted() -> None:
    request = request_of(by_tensor())
    fields = {key: value for key, value in lm_studio.load_fields(request).items() if "Expert" in key}
    assert fields == {"llm.load.numCpuExpertLayersRatio": round(21 / 47, 4)}
    losses = export("lm-studio", request).losses
    assert any("LM Studio moves those of the first 21 layers" in loss for loss in losses)
    odd = full_gpu(override_tensor=(TensorOverride(pattern="(["), TensorOverride(pattern="exps", buffer="CUDA1")))
    assert lm_studio.expert_ratio(odd) == "off"


def test_lm_studio_samples_as_the_model_card_says() -> None:
    own = json.loads(export("lm-studio-defaults", request_of(full_gpu(), use=Use.CODING, thinking=False)).text)
    fields = {field["key"]: field["value"] for field in own["operation"]["fields"]}
    assert fields["llm.prediction.temperature"] == 0.7
    assert fields["llm.prediction.repeatPenalty"] == {"checked": False, "value": 1.0}  # on, at 1.1, by default there
    assert fields["llm.prediction.reasoning.enableThinking"] is False


def test_lms_commands_import_a_file_or_get_it() -> None:
    lines = grammar_lines(export("lms-load", request_of(with_file(hybrid(), "/my models/a b.gguf"), port=1234)).text)
    assert lines[0] == [
        "lms", "import", "--user-repo", "unsloth/GLM-4.7-Flash-GGUF", "--symbolic-link", "--yes", "/my models/a b.gguf",
    ]  # fmt: skip
    assert lines[1][2] == "unsloth/GLM-4.7-Flash-GGUF/a b.gguf"
    assert {"--context-length", "131072", "--gpu", "max", "--parallel", "1"} <= set(lines[1])
    assert lines[2] == ["lms", "server", "start", "--port", "1234"]
    got = grammar_lines(export("lms-load", request_of(with_file(hybrid(), "glm-4.7-flash:q4_K_M"))).text)
    assert got[0] == ["lms", "get", "unsloth/GLM-4.7-Flash-GGUF@q4_k_m"]
    losses = export("lms-load", request_of(hybrid())).losses
    assert any("experts of 12 layers" in loss for loss in losses)


def grammar_lines(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]


def test_lm_studio_has_its_own_kv_types_and_key() -> None:
    with pytest.raises(NotExpressible, match="not as bf16"):
        export("lm-studio", request_of(full_gpu(cache_type_k="bf16", cache_type_v="bf16")))
    with pytest.raises(NotExpressible, match="API key"):
        export("lm-studio", ExportRequest(plan=full_gpu(), endpoint=Endpoint(host="0.0.0.0", port=1, api_key_file="k")))


# mlx-lm


def test_mlx_is_told_what_its_defaults_would_spoil() -> None:
    exported = export("mlx-lm", request_of(mac()))
    options = options_of(grammars.shell_words(exported.text)[1:])
    assert options["model"] == "mlx-community/GLM-4.7-Flash-4bit"
    assert (options["temp"], options["top-p"], options["min-p"]) == (1, 0.95, 0.01)
    assert options["max-tokens"] == 32768
    assert options["prompt-cache-bytes"] == 65536 * 54144
    assert json.loads(options["chat-template-args"]) == {"enable_thinking": True}
    assert not any(name.startswith("kv-") for name in options)
    assert not any("Apple silicon" in loss for loss in exported.losses)
    assert any("Apple silicon" in loss for loss in export("mlx-lm", request_of(full_gpu())).losses)


@pytest.mark.parametrize("knobs", [{"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, {"n_cpu_moe": 2}])
def test_mlx_refuses_a_quantised_cache_and_experts_apart(knobs: dict[str, Any]) -> None:
    with pytest.raises(NotExpressible, match="mlx-lm cannot run this plan"):
        export("mlx-lm", request_of(mac(**knobs)))


# vLLM and SGLang


@pytest.mark.parametrize(
    ("n_gpu", "parallel"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 5), (8, 5), (10, 10), (20, 20), (32, 20)]
)
def test_tensor_parallel_divides_the_heads(n_gpu: int, parallel: int) -> None:
    plan = on(full_gpu(), *(["NVIDIA H100"] * n_gpu))
    for name, option in (("vllm-config", "tensor-parallel-size"), ("sglang-config", "tp-size")):
        exported = export(name, request_of(plan))
        assert load(exported.text)[option] == parallel
        assert 20 % parallel == 0
        assert any(f"{n_gpu - parallel} of {n_gpu} GPUs stay idle" in loss for loss in exported.losses) is (
            parallel < n_gpu
        )


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_command_and_file_say_the_same(name: str) -> None:
    request = request_of(on(full_gpu(n_parallel=8, load_mtp=True), "NVIDIA B200"), use=Use.CODING)
    words = grammars.shell_words(export(name, request).text)
    by_file = load(export(f"{name}-config", request).text)
    by_command = options_of(words[3:])
    if name == "vllm":
        by_command["model"] = words[2]
    assert by_command == by_file
    assert by_file["tool-call-parser"] == "glm47"
    assert by_file["reasoning-parser"] == "glm45"


def test_vllm_is_told_the_plan() -> None:
    options = load(export("vllm-config", request_of(on(full_gpu(n_parallel=8), "NVIDIA B200"), port=8000)).text)
    told = {"max-model-len": 65536, "max-num-seqs": 8, "max-num-batched-tokens": 2048, "port": 8000}
    assert {key: options[key] for key in told} == told
    generation = json.loads(options["override-generation-config"])
    assert generation == {"temperature": 1.0, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.0}


def test_slots_with_contexts_of_their_own_share_the_length() -> None:
    options = load(export("vllm-config", request_of(full_gpu(n_parallel=4, kv_unified=False))).text)
    assert options["max-model-len"] == 16384


@pytest.mark.parametrize(
    ("quantization", "gigabytes", "repo"),
    [
        ("bf16", 59.9, "zai-org/GLM-4.7-Flash"),
        ("q8_0", 31.8, "unsloth/GLM-4.7-Flash-FP8-Dynamic"),
        ("q6_K", 24.8, "unsloth/GLM-4.7-Flash-FP8-Dynamic"),
        ("q5_K_M", 21.6, "GadflyII/GLM-4.7-Flash-NVFP4"),
        ("q4_K_M", 18.3, "GadflyII/GLM-4.7-Flash-NVFP4"),
    ],
)
def test_published_weights_stand_in_for_the_file(quantization: str, gigabytes: float, repo: str) -> None:
    plan = on(of_type(full_gpu(), quantization, gigabytes), "NVIDIA B200", gib=180)
    exported = export("vllm-config", request_of(plan))
    assert load(exported.text)["model"] == repo
    assert any(f"stands in for {quantization}" in loss for loss in exported.losses)
    assert ".gguf" not in exported.text


@pytest.mark.parametrize("name", ["vllm", "vllm-config", "sglang", "sglang-config"])
@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (cpu_only(), "a machine without GPUs"),
        (hybrid(), "experts of 12 layers in main memory"),
        (full_gpu(n_gpu_layers=30), "30 of 48 layers on GPUs"),
        (full_gpu(override_tensor=(TensorOverride(pattern="attn"),)), "override_tensor"),
        (by_tensor(), "experts of 21 layers in main memory"),
        (full_gpu(cache_type_k="q4_0", cache_type_v="q4_0"), "a KV cache of q4_0"),
        (on(full_gpu(), "Apple M4 Max", os="macOS 26"), "Apple GPUs"),
        (on(full_gpu(), "NVIDIA RTX 4060 Ti", gib=16), "does not fit"),
        (on(of_type(full_gpu(), "bf16", 59.9), "NVIDIA A100", gib=40), "does not fit"),
    ],
)
def test_what_gpu_servers_cannot_run_is_refused(name: str, plan: Plan, why: str) -> None:
    with pytest.raises(NotExpressible, match=why):
        export(name, request_of(plan))


def test_a_quantised_cache_becomes_fp8_and_that_is_told() -> None:
    plan = full_gpu(cache_type_k="q8_0", cache_type_v="q8_0")
    for name, kv in (("vllm-config", "fp8"), ("sglang-config", "fp8_e4m3")):
        exported = export(name, request_of(plan))
        assert load(exported.text)["kv-cache-dtype"] == kv
        assert any("KV cache q8_0" in loss for loss in exported.losses)


def test_another_model_has_no_known_weights() -> None:
    plan = full_gpu()
    other = dataclasses.replace(plan, model=dataclasses.replace(plan.model, name="qwen3", architecture="qwen3moe"))
    for kind in ("safetensors", "mlx"):
        with pytest.raises(NotExpressible, match="no other weights are known for qwen3"):
            stand_in(other, kind, "vLLM")


def test_a_key_comes_with_the_command_never_with_the_file() -> None:
    endpoint = Endpoint(host="0.0.0.0", port=8000, api_key_file="/etc/my key")
    request = ExportRequest(plan=full_gpu(), endpoint=endpoint)
    read = "\"$(grep -v '^#' '/etc/my key' | head -n 1)\""
    assert f"VLLM_API_KEY={read} vllm serve" in export("vllm", request).text
    assert f"--api-key {read}" in export("sglang", request).text
    for name in ("vllm-config", "sglang-config"):
        with pytest.raises(NotExpressible, match="open to everybody"):
            export(name, request)


def test_versions_stand_in_the_files() -> None:
    for name, target in (("vllm", "vllm"), ("sglang", "sglang"), ("mlx-lm", "mlx_lm")):
        plan = mac() if target == "mlx_lm" else full_gpu()
        assert targets.of(target)["minimum_version"] in export(name, request_of(plan)).text


WRONG: list[tuple[str, str, str]] = [
    ("llama-cpp-python", "{", "Expecting"),
    ("llama-cpp-python", '{"models": [{"model": "x", "n_cpu_moe": 1}]}', "no property 'n_cpu_moe' is known"),
    ("llama-cpp-python", '{"models": [{"model": "x", "n_ctx": "many"}]}', "'many' is no integer"),
    ("vllm", "vllm serve x --max-model-length 1\n", "no property 'max-model-length' is known"),
    ("vllm", "vllm serve x y\n", "neither an option nor its value"),
    ("vllm-config", "kv-cache-dtype: q8_0\n", "'q8_0' is none of auto"),
    ("vllm-config", "override-generation-config: '{'\n", "is no JSON"),
    ("sglang-config", "reasoning-parser: glm47\n", "'glm47' is none of glm45"),
    ("sglang", "python3 -m sglang.launch_server --tp-size two\n", "'two' is no integer"),
    ("mlx-lm", "mlx_lm.server --kv-bits 8\n", "--kv-bits crashes"),
    ("mlx-lm", "mlx_lm.server --max-context 8\n", "no property 'max-context' is known"),
    ("lm-studio", "model: a\n", "'base' is missing"),
    ("lms-load", "lms load x --ctx 1\n", "lms load has no option --ctx"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_the_checks_refuse_what_is_wrong(name: str, text: str, said: str) -> None:
    report = check(name, Exported(text=text, suffix=""), Tools())
    assert any(said in problem for problem in report.problems), report


def test_lm_studio_fields_are_checked_one_by_one() -> None:
    document = json.loads(export("lm-studio-defaults", request_of(full_gpu())).text)
    document["load"]["fields"] += [{"key": "llm.load.nGpuLayers", "value": 1}]
    document["load"]["fields"][0]["value"] = "many"
    report = check("lm-studio-defaults", Exported(text=json.dumps(document), suffix=""), Tools())
    assert any("LM Studio has no field llm.load.nGpuLayers" in problem for problem in report.problems)
    assert any("'many' is no integer" in problem for problem in report.problems)
