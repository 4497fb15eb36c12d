"""The synthetic model read back from its file: the sums that llama.cpp itself prints for GLM-4.7-Flash."""

from pathlib import Path

import pytest

from glmplan.inspection import TensorGroup
from glmplan.profiles.gguf import inspect_model, read_profile
from glmplan.profiles.recipes import catalog_profile, quantization_names
from glmplan.profiles.synthetic import write_synthetic
from glmplan.units import MIB

# llama-quantize --dry-run of llama.cpp 0c1e57098 on the BF16 header, MiB of tensor data.
SUMS_MIB = {"q4_K_M": 17_283.7, "q8_0": 30_358.6, "bf16": 57_124.5, "q6_K": 23_465.5, "q5_K_M": 20_270.4}


@pytest.mark.parametrize("quant", SUMS_MIB)
def test_header_sums_are_llama_cpps(tmp_path: Path, quant: str) -> None:
    path = tmp_path / f"{quant}.gguf"
    write_synthetic(path, catalog_profile(quant), tokenizer=quant == "q4_K_M")
    found = inspect_model(path)
    assert (found.n_tensors, found.n_parameters) == (844, 29_943_393_920)
    assert round(found.tensor_bytes / MIB, 1) == SUMS_MIB[quant]
    assert found.kv_cache.bytes_per_token["f16"] == 54_144
    assert found.n_vocab == 154_880
    parameters = {group.group: group.n_parameters for group in found.groups}
    assert parameters[TensorGroup.ROUTED_EXPERTS] == 27_783_069_696
    assert parameters[TensorGroup.ATTENTION] == 1_022_623_744
    assert parameters[TensorGroup.SHARED_EXPERT] == 434_110_464
    assert parameters[TensorGroup.EMBEDDING] == parameters[TensorGroup.OUTPUT] == 317_194_240
    assert parameters[TensorGroup.DENSE_FFN] == 62_914_560
    small = parameters[TensorGroup.ROUTER] + parameters[TensorGroup.NORMS]
    assert small == 6_029_312 + 257_664


@pytest.mark.parametrize("quant", quantization_names())
def test_the_file_says_what_the_catalog_says(tmp_path: Path, quant: str) -> None:
    catalog = catalog_profile(quant, n_nextn_layers=1)
    path = tmp_path / "x.gguf"
    write_synthetic(path, catalog, tokenizer=False)
    read = read_profile(path)
    assert read.tensors == catalog.tensors
    assert read.attention == catalog.attention
    assert read.synthetic
    same = ("architecture", "n_layer", "n_nextn_layers", "n_layer_dense_lead", "n_ctx_train", "n_embd", "n_ff",
            "n_vocab", "n_expert", "n_expert_used", "n_ff_expert", "expert_gating")  # fmt: skip
    assert {name: getattr(read, name) for name in same} == {name: getattr(catalog, name) for name in same}
