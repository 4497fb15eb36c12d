"""The catalog's models as `glmplan models` shows them."""

from collections.abc import Iterator
from typing import Any

from glmplan.model import MlaAttention, ModelProfile
from glmplan.model_listing import ListedFigure, ListedFile, ListedModel, ModelListing
from glmplan.profiles.benchmarks import benchmark_figures
from glmplan.profiles.published_rows import KnownBy, PublishedFile, published_rows
from glmplan.profiles.recipes import catalog_profile, model_facts, model_names

_F16_BYTES = 2


def model_listing(name: str | None = None) -> ModelListing:
    """All models of the catalog, or the one named.

    Raises:
        ProfileError: no such model; the hint lists near matches.
    """
    names = model_names() if name is None else (str(model_facts(name)["name"]),)
    return ModelListing(models=tuple(_listed(known) for known in names))


def _listed(name: str) -> ListedModel:
    facts = model_facts(name)
    whole = catalog_profile("bf16", model=name)
    figures = [figure for figure in benchmark_figures() if figure.model == facts["title"]]
    return ListedModel(
        name=name,
        title=facts["title"],
        architecture=facts["architecture"],
        n_parameters=whole.n_parameters,
        n_ctx_train=whole.n_ctx_train,
        f16_cache_bytes_per_token=f16_cache_bytes_per_token(whole),
        has_memory_model=whole.compute is not None,
        files=tuple(sorted(_files(facts), key=lambda file: file.tensor_bytes)),
        benchmarks=tuple(
            ListedFigure(
                benchmark=figure.benchmark,
                unit=figure.unit,
                stated=figure.stated,
                public=figure.public,
                disagrees=figure.disagrees,
                source=figure.source,
                note=figure.note,
            )
            for figure in figures
        ),
    )


def f16_cache_bytes_per_token(profile: ModelProfile) -> int:
    """Bytes of an f16 cache that one token takes in all layers that cache."""
    attention, n_main = profile.attention, profile.n_layer - profile.n_nextn_layers
    if isinstance(attention, MlaAttention):
        return _F16_BYTES * n_main * (attention.kv_lora_rank + attention.rope_dimensions)
    heads = attention.n_head_kv_by_layer or (attention.n_head_kv,) * n_main
    return _F16_BYTES * sum(heads) * (attention.key_length + attention.value_length)


def _files(facts: Any) -> Iterator[ListedFile]:  # noqa: ANN401 - YAML
    model, source = facts["name"], " ".join(str(facts["quantizations"]["source"]).split())
    for recipe in facts["quantizations"]["recipes"]:
        yield _file(recipe["name"], catalog_profile(recipe["name"], model=model), None, source)
    for row in published_rows(facts):
        name = f"{row.publisher}/{row.quant}"
        yield _file(name, catalog_profile(name, model=model), row, " ".join(row.source.split()))


def _file(name: str, profile: ModelProfile, row: PublishedFile | None, source: str) -> ListedFile:
    return ListedFile(
        quant=name,
        tensor_bytes=profile.tensor_bytes,
        bits_per_weight=round(8 * profile.tensor_bytes / profile.n_parameters, 2),
        quality_rank=profile.quality_rank,
        known_by=(row.known_by if row else KnownBy.RECIPE).value,
        assumed_bytes=profile.assumed_bytes,
        repo=row.repo if row else None,
        file=row.file if row else None,
        file_bytes=row.n_bytes if row else None,
        sha256=row.sha256 if row else None,
        source=source,
    )
