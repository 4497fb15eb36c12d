"""Ollama's files: what a Modelfile says, what only the environment can, and what neither can."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from export_plans import PLANS, by_tensor, cpu_only, full_gpu, hybrid, request_of, with_file
from hypothesis import given
from hypothesis import strategies as st

from glmplan.errors import NotExpressible
from glmplan.launchers.export.checks.grammars import shell_exports
from glmplan.launchers.export.checks.ollama import parse_modelfile
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, Use
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.launch import Endpoint
from glmplan.placement import FlashAttention, NumaMode, TensorOverride
from glmplan.plan import Plan


def modelfile(plan: Plan, **wanted: Any) -> dict[str, str]:
    return dict(parse_modelfile(export("modelfile", request_of(plan, **wanted)).text))


def variables(plan: Plan, **wanted: Any) -> dict[str, str]:
    return shell_exports(export("ollama-env", request_of(plan, **wanted)).text)


@pytest.mark.parametrize("name", PLANS)
def test_a_modelfile_says_what_the_plan_says(name: str) -> None:
    plan = PLANS[name]()
    placement = plan.placement
    said = modelfile(plan)
    assert said == {
        "from": plan.model.file,
        "requires": "0.30.0",
        "renderer": "glm-4.7",
        "parser": "glm-4.7",
        "parameter num_ctx": str(placement.n_ctx),
        "parameter num_gpu": str(placement.n_gpu_layers),
        "parameter num_batch": str(placement.n_ubatch),
        "parameter num_thread": str(placement.n_threads),
        "parameter use_mmap": "true" if placement.use_mmap else "false",
        "parameter temperature": "1",
        "parameter top_p": "0.95",
        "parameter min_p": "0.01",
        "parameter repeat_penalty": "1",
        "parameter num_predict": str(min(131072, placement.n_ctx // 2)),
    }


def test_sampling_follows_the_use() -> None:
    said = modelfile(full_gpu(), use=Use.CODING)
    assert (said["parameter temperature"], said["parameter top_p"]) == ("0.7", "1")
    assert said["parameter num_predict"] == "16384"


@pytest.mark.parametrize(
    ("file", "origin"),
    [
        ("glm-4.7-flash:q4_K_M", "glm-4.7-flash:q4_K_M"),
        ("https://example.org/GLM-4.7-Flash-Q4_K_M.gguf", "glm-4.7-flash:q4_K_M"),
    ],
)
def test_a_file_nobody_has_comes_from_the_library_which_brings_its_own_parser(file: str, origin: str) -> None:
    said = modelfile(with_file(full_gpu(), file))
    assert said["from"] == origin
    assert "parser" not in said


@pytest.mark.parametrize("name", PLANS)
def test_the_environment_says_what_a_modelfile_cannot(name: str) -> None:
    placement = PLANS[name]().placement
    said = variables(PLANS[name](), port=11434)
    assert said["OLLAMA_HOST"] == "127.0.0.1:11434"
    assert said["OLLAMA_CONTEXT_LENGTH"] == str(placement.n_ctx)
    assert said["OLLAMA_KV_CACHE_TYPE"] == placement.cache_type_k
    assert said["OLLAMA_FLASH_ATTENTION"] == "1"
    assert said["OLLAMA_NUM_PARALLEL"] == "1"
    assert said["LLAMA_ARG_FIT"] == "off"
    assert said["LLAMA_ARG_CACHE_RAM"] == str(placement.cache_ram_bytes // 2**20)
    assert said.get("LLAMA_ARG_N_CPU_MOE", "0") == str(placement.n_cpu_moe)
    assert said.get("LLAMA_ARG_REPACK", "1") == str(int(placement.repack))


def test_slots_divide_the_context_because_ollama_multiplies_it() -> None:
    plan = full_gpu(n_parallel=4)
    assert modelfile(plan)["parameter num_ctx"] == "16384"
    assert variables(plan)["OLLAMA_CONTEXT_LENGTH"] == "16384"
    assert variables(plan)["OLLAMA_NUM_PARALLEL"] == "4"


@pytest.mark.parametrize(
    ("plan", "lost"),
    [
        (hybrid(), "experts of 12 layers in main memory"),
        (hybrid(), "KV cache q8_0"),
        (full_gpu(flash_attn=FlashAttention.OFF), "flash attention off"),
        (full_gpu(n_parallel=2), "2 slots"),
        (full_gpu(n_parallel=2), "one context shared by 2 slots"),
        (full_gpu(override_tensor=(TensorOverride(pattern="attn"),)), "tensors placed by override_tensor"),
        (by_tensor(), "experts of 21 layers in main memory"),
        (full_gpu(tensor_split=(1.0, 1.0)), "tensor split"),
        (full_gpu(use_mlock=True), "weights locked in memory"),
        (full_gpu(op_offload=False), "op_offload off"),
        (full_gpu(numa=NumaMode.DISTRIBUTE), "NUMA distribute"),
        (full_gpu(), "2048 tokens per batch"),
        (full_gpu(n_threads_batch=16), "16 threads for prefill"),
        (cpu_only(), "repacking off"),
        (with_file(full_gpu(), "/m/GLM-BF16-00001-of-00002.gguf"), "a split file"),
    ],
)
def test_what_a_modelfile_cannot_say_is_named_in_it_and_beside_it(plan: Plan, lost: str) -> None:
    exported = export("modelfile", request_of(plan))
    assert any(lost in loss for loss in exported.losses)
    assert f"# not expressed: {lost}" in exported.text


def test_the_environment_says_on_what_it_leans() -> None:
    exported = export("ollama-env", request_of(hybrid(use_mmap=False, use_mlock=True)))
    assert any("LLAMA_ARG_N_CPU_MOE, LLAMA_ARG_LOAD_MODE: read by the llama-server" in loss for loss in exported.losses)
    assert export("ollama-env", request_of(full_gpu())).losses == ()


def test_thinking_is_switched_by_requests_only() -> None:
    exported = export("modelfile", request_of(full_gpu(), thinking=False))
    assert any("think: false" in loss for loss in exported.losses)


@pytest.mark.parametrize("format_name", ["modelfile", "ollama-env"])
@pytest.mark.parametrize(
    ("knobs", "endpoint", "said"),
    [
        ({"cache_type_k": "q5_1", "cache_type_v": "q5_1"}, Endpoint(port=1), "f16, q8_0, q4_0, not as q5_1"),
        ({"cache_type_k": "q8_0"}, Endpoint(port=1), "not as q8_0"),
        ({}, Endpoint(port=1, host="0.0.0.0", api_key_file="/k"), "cannot be given an API key"),
    ],
)
def test_what_ollama_cannot_do_is_refused(
    format_name: str, knobs: dict[str, Any], endpoint: Endpoint, said: str
) -> None:
    request = dataclasses.replace(request_of(full_gpu(**knobs)), endpoint=endpoint)
    with pytest.raises(NotExpressible, match=said) as caught:
        export(format_name, request)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PARAMETER num_ctx 1\n", "no FROM line"),
        ("FORM x\n", "line 1: 'form' is no instruction"),
        ('FROM "x\n', "line 1: a quote is not closed"),
        ("FROM x\nPARAMETER n_ctx 1\n", "unknown parameter 'n_ctx'"),
        ("FROM x\nPARAMETER num_ctx 1.5\n", "invalid int value '1.5' of num_ctx"),
        ("FROM x\nPARAMETER use_mmap on\n", "invalid bool value 'on' of use_mmap"),
        ("FROM x\nPARAMETER top_p high\n", "invalid float value 'high' of top_p"),
    ],
)
def test_the_check_refuses_what_ollama_would(text: str, said: str) -> None:
    report = check("modelfile", Exported(text=text, suffix=""), Tools())
    assert any(said in problem for problem in report.problems)
    assert report.by == ("our reading of Ollama's Modelfile grammar",)


def test_the_check_refuses_variables_nobody_reads() -> None:
    text = "export OLLAMA_CONTEXT=1\n"
    report = check("ollama-env", Exported(text=text, suffix=""), Tools())
    assert report.problems == ("neither Ollama nor its llama-server reads OLLAMA_CONTEXT",)


@pytest.mark.parametrize("format_name", ["modelfile", "ollama-env"])
@pytest.mark.parametrize("name", PLANS)
def test_the_check_accepts_what_we_write(format_name: str, name: str) -> None:
    request = request_of(PLANS[name](tensor_split=(1.0, 2.0), load_mtp=True))
    assert check(format_name, export(format_name, request), Tools()).problems == ()


@given(name=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=40))
def test_a_file_name_comes_back_whole_or_is_refused(name: str) -> None:
    path = str(Path("/models") / name)
    try:
        text = export("modelfile", request_of(with_file(full_gpu(), path))).text
    except NotExpressible:
        assert not path.isprintable()
        return
    assert dict(parse_modelfile(text))["from"] == path
    assert len(parse_modelfile(text)) == len(modelfile(full_gpu()))


@given(pattern=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40))
def test_a_pattern_comes_back_whole_from_the_environment(pattern: str) -> None:
    plan = full_gpu(override_tensor=(TensorOverride(pattern=pattern),))
    assert variables(plan)["LLAMA_ARG_OVERRIDE_TENSOR"] == f"{pattern}=CPU"
