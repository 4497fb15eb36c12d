"""Every recipe of the catalog gives each tensor the type that llama-quantize itself would."""

import importlib.util
from pathlib import Path

import pytest

from glmplan.ggml_types import GgmlType
from glmplan.profiles.recipes import catalog_profile, model_facts, model_names
from glmplan.profiles.synthetic import write_synthetic

pytestmark = pytest.mark.compiled

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("model", model_names())
def test_types_equal_llama_quantize(model: str, engine_programs: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("derive_recipes", ROOT / "scripts" / "derive_recipes.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    file, imatrix = tmp_path / "bf16.gguf", tmp_path / "imatrix.dat"
    write_synthetic(file, catalog_profile("bf16", model=model), tokenizer=False)
    script.write_imatrix(imatrix)
    for recipe in model_facts(model)["quantizations"]["recipes"]:
        given = imatrix if recipe.get("imatrix") else None
        theirs = script.tensor_types(str(engine_programs / "llama-quantize"), file, recipe["name"].upper(), given)
        ours = {
            tensor.name: tensor.type.name
            for tensor in catalog_profile(recipe["name"], model=model).tensors
            if tensor.type is not GgmlType.F32
        }
        assert ours == theirs, recipe["name"]
