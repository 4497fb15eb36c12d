"""`glmplan models`: every name that `--model` and `--quant` take, with what is known of it."""

import pytest

from glmplan.errors import ProfileError
from glmplan.profiles.benchmarks import benchmark_figures
from glmplan.profiles.model_rows import model_listing
from glmplan.profiles.recipes import catalog_profile, model_names, quantization_names


def test_all_models_are_listed_with_every_name_of_their_files() -> None:
    models = model_listing().models
    assert tuple(model.name for model in models) == model_names()
    for model in models:
        listed = {file.quant.rpartition("/")[2] for file in model.files}
        assert listed == set(quantization_names(model.name))
        for file in model.files:
            assert catalog_profile(file.quant, model=model.name).tensor_bytes == file.tensor_bytes
            assert (file.repo is None) == (file.file is None)
            assert file.source
        assert [file.tensor_bytes for file in model.files] == sorted(file.tensor_bytes for file in model.files)


@pytest.mark.parametrize(
    ("name", "cache_bytes", "planned"),
    [
        # 47 layers of 512 + 64; 92 of 8 heads of 128 + 128; 6 attention layers of 2 heads; 48 of 4 heads.
        ("glm-4.7-flash", 54_144, True),
        ("GLM-4.7", 376_832, True),
        ("nemotron-3-nano-30b-a3b", 6_144, False),
        ("qwen3-30b-a3b", 98_304, True),
    ],
)
def test_one_model_by_any_case(name: str, cache_bytes: int, *, planned: bool) -> None:
    (model,) = model_listing(name).models
    assert model.name == name.lower()
    assert (model.f16_cache_bytes_per_token, model.has_memory_model) == (cache_bytes, planned)


def test_figures_stand_under_their_model_and_say_where_they_disagree() -> None:
    listed = [figure for model in model_listing().models for figure in model.benchmarks]
    titles = {model.title for model in model_listing().models}
    assert len(listed) == sum(1 for figure in benchmark_figures() if figure.model in titles)
    assert any(figure.disagrees for figure in listed)
    assert all(figure.source for figure in listed)


def test_an_unknown_model_names_those_near() -> None:
    with pytest.raises(ProfileError, match="unknown model 'nano'") as refused:
        model_listing("nano")
    assert refused.value.hint is not None
    assert refused.value.hint.startswith("did you mean nemotron-3-nano-30b-a3b?")
