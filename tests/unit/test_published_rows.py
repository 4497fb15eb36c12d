"""The catalog's published files: sizes, how their types are known, and what stands in where they are not."""

from dataclasses import replace

import pytest

from glmplan.engine import EngineKind
from glmplan.errors import ProfileError
from glmplan.estimate import Basis
from glmplan.model import ModelProfile
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.published_rows import KnownBy, PublishedFile, published_rows, row_named
from glmplan.profiles.recipes import (
    catalog_profile,
    model_facts,
    model_names,
    published_as,
    quantization_names,
    smaller_quantizations,
    usual_quantizations,
)
from glmplan.units import GIB, MIB

ROWS = [(model, row) for model in model_names() for row in published_rows(model_facts(model))]


def own_file(model: str, row: PublishedFile) -> ModelProfile:
    return catalog_profile(f"{row.publisher}/{row.quant}", model=model)


@pytest.mark.parametrize(("model", "row"), ROWS, ids=lambda value: getattr(value, "reference", value))
def test_a_file_is_as_large_as_published(model: str, row: PublishedFile) -> None:
    """To the byte where the types are known (a header differs by its texts); never below it where they are assumed."""
    profile = own_file(model, row)
    assert profile.download == row.reference
    assert (profile.assumed_bytes > 0) == (row.known_by is KnownBy.ASSUMED)
    if row.tensor_bytes is None:
        return
    over = profile.tensor_bytes - row.tensor_bytes
    if row.known_by is KnownBy.ASSUMED:
        # One more step of type of one layer's experts, at most.
        assert 0 <= over < 200 * MIB
    else:
        assert -2 * row.uncertainty_bytes - 1024 <= over <= 1024


@pytest.mark.parametrize("model", model_names())
def test_every_listed_name_is_a_file(model: str) -> None:
    for name in quantization_names(model):
        profile = catalog_profile(name.upper(), model=model)
        assert profile.quantization == name
    assert {*usual_quantizations(model), *smaller_quantizations(model)} <= set(quantization_names(model))


def test_a_recipe_is_not_a_publishers_file() -> None:
    recipe, published = catalog_profile("q4_K_M"), catalog_profile("unsloth/q4_K_M")
    assert recipe.download is None
    assert published.tensor_bytes - recipe.tensor_bytes == 179_617_792
    own = published_as(recipe)
    assert own is not None
    assert own.publisher == "unsloth"
    assert published_as(catalog_profile("bartowski/q6_K")) == row_named(model_facts(), "bartowski/q6_K")


@pytest.mark.parametrize(("typed", "near"), [("UD-Q4_XL", "UD-Q4_K_XL"), ("unsloth/iq3-xxs", "IQ3_XXS")])
def test_an_unknown_name_lists_near_ones(typed: str, near: str) -> None:
    with pytest.raises(ProfileError) as raised:
        catalog_profile(typed)
    assert near in raised.value.hint.partition("known:")[0]


def test_an_unknown_model_lists_near_ones() -> None:
    with pytest.raises(ProfileError) as raised:
        catalog_profile("q4_K_M", model="qwen3-30b")
    assert "did you mean qwen3-30b-a3b" in raised.value.hint


def test_what_auto_may_choose_can_be_fetched() -> None:
    for name in (*usual_quantizations(), *smaller_quantizations()):
        assert row_named(model_facts(), name) is not None, name


def test_the_catalog_spans_down_to_what_a_mac_with_16_gb_holds() -> None:
    sizes = [catalog_profile(name).tensor_bytes for name in smaller_quantizations()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 11.2 * GIB


@pytest.mark.parametrize("n_cpu_moe", [0, 20, 47])
def test_room_is_kept_for_tensors_of_assumed_types(n_cpu_moe: int) -> None:
    """Were all unknown bytes in tensors of the GPU, they would still fit; with all weights there, none is unknown."""
    profile = catalog_profile("UD-Q3_K_XL")
    gpu = GpuSpace(id="gpu0", kind=GpuKind.CUDA, usable_bytes=24 * GIB, free_bytes=24 * GIB)
    spaces = Spaces(gpus=(gpu,), host=HostSpace(usable_bytes=64 * GIB))
    unsure, sure = (MemoryModel(replace(profile, assumed_bytes=n), spaces) for n in (profile.assumed_bytes, 0))
    base = base_placement(sure, engine=EngineKind.LLAMA_SERVER, n_ctx=32768, cache="f16", n_parallel=1, n_threads=8)
    placement = replace(base, n_cpu_moe=n_cpu_moe)
    before, after = sure.estimate(placement), unsure.estimate(placement)
    assert (before.basis, after.basis) == (Basis.ROOFLINE, Basis.ASSUMED)
    kept = after.devices[0].overhead_bytes - before.devices[0].overhead_bytes
    on_gpu = before.devices[0].weights_bytes / sum(row.weights_bytes for row in before.devices)
    assert kept == pytest.approx(profile.assumed_bytes * (1 - on_gpu), abs=1)
    assert before.devices[-1] == after.devices[-1]
