"""Tensor tables of the catalog: hyper-parameters and a quantisation recipe give every tensor's name, shape and type.

A recipe is what `llama-quantize` does to the model; published files that deviate are read from their own header.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final

from glmplan.errors import InputError, ProfileError
from glmplan.model import Attention, ComputeBuffers, GqaAttention, MlaAttention, ModelProfile
from glmplan.profiles.fitted_types import grown
from glmplan.profiles.published_rows import KnownBy, PublishedFile, published_rows, row_named
from glmplan.profiles.recipe_types import typed, with_changes
from glmplan.profiles.store import shipped, shipped_names
from glmplan.profiles.tensor_shapes import tensor_shapes

DEFAULT_MODEL: Final = "glm-4.7-flash"
# Tables beside the models' own files.
_TABLES: Final = frozenset({"benchmarks", "quality"})
# The most by which a listed file of known size differs from the recipe of its name (bartowski's q4_K_S).
_FILES_DIFFER_BY: Final = 0.042


def model_facts(model: str = DEFAULT_MODEL) -> Mapping[str, Any]:
    """The shipped facts of a model by its catalog name, any case.

    Raises:
        ProfileError: no such model; the hint lists near matches.
    """
    names = model_names()
    name = model.lower()
    if name not in names:
        near = _near(name, names)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        message = f"unknown model {model!r}"
        raise ProfileError(message, hint=f"{hint}known: {', '.join(names)}")
    facts: Mapping[str, Any] = shipped("models", f"{name}.yaml")
    return facts


def quantization_names(model: str = DEFAULT_MODEL) -> tuple[str, ...]:
    """Names `--quant` accepts for a model, in the catalog's order: recipes, then files no recipe makes.

    A name with a publisher before it (`unsloth/q4_K_M`) is that publisher's own file.
    """
    return tuple(_names(model_facts(model)).values())


def smaller_quantizations(model: str = DEFAULT_MODEL) -> tuple[str, ...]:
    """Files to look at where the usual ones are too large, the largest first."""
    return tuple(model_facts(model)["quantizations"].get("smaller", ()))


def usual_quantizations(model: str = DEFAULT_MODEL) -> tuple[str, ...]:
    """Files a plan chooses among unless told otherwise."""
    return tuple(model_facts(model)["quantizations"]["usual"])


def _names(facts: Mapping[str, Any]) -> Mapping[str, str]:
    """Lower-case name of each recipe and of each quantisation only publishers have, to the catalog's spelling."""
    recipes = (str(recipe["name"]) for recipe in facts["quantizations"]["recipes"])
    published = (row.quant for row in published_rows(facts))
    found: dict[str, str] = {}
    for name in (*recipes, *published):
        found.setdefault(name.lower(), name)
    return found


def _recipe(facts: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    recipes = facts["quantizations"]["recipes"]
    return next((recipe for recipe in recipes if recipe["name"].lower() == name.lower()), None)


def _unknown_quantization(facts: Mapping[str, Any], name: str) -> ProfileError:
    names = _names(facts)
    near = _near(name.lower().rpartition("/")[2], names)
    hint = f"did you mean {', '.join(names[key] for key in near)}? " if near else ""
    message = f"unknown quantisation {name!r} of {facts['name']}"
    return ProfileError(message, hint=f"{hint}known: {', '.join(names.values())}; or PUBLISHER/NAME for one's own file")


def _near(name: str, known: Collection[str]) -> list[str]:
    """Names that hold the one given, otherwise those spelled almost like it."""
    holding = [other for other in known if name and name in other]
    return holding[:3] or get_close_matches(name, known, n=3, cutoff=0.4)


def _attention(hyper: Mapping[str, Any]) -> Attention:
    known = hyper["attention"]
    values = {key: value for key, value in known.items() if key != "kind"}
    if known["kind"] == "mla":
        return MlaAttention(**values)
    pattern = hyper.get("layer_pattern", "")
    by_layer = tuple(known["n_head_kv"] if kind == "*" else 0 for kind in pattern)
    return GqaAttention(**values, n_head_kv_by_layer=by_layer)


def _compute_buffers(facts: Mapping[str, Any]) -> ComputeBuffers | None:
    known = facts.get("compute_buffers")
    return (
        None
        if known is None
        else ComputeBuffers(**{key: int(value) for key, value in known.items() if key != "source"})
    )


def _quality_rank(facts: Mapping[str, Any], quant: str) -> int | None:
    groups: list[list[str]] = facts.get("quality", {}).get("groups", [])
    return next((rank for rank, group in enumerate(groups) if quant in group), None)


def catalog_profile(
    quant: str,
    *,
    model: str = DEFAULT_MODEL,
    n_layer: int | None = None,
    n_nextn_layers: int | None = None,
) -> ModelProfile:
    """The model file of a quantisation as the catalog knows it, before anything is downloaded.

    Args:
        quant: a name of `quantization_names`, any case, or `PUBLISHER/NAME`.
        model: a catalog model.
        n_layer: fewer layers at the same widths (for synthetic cuts); all by default.
        n_nextn_layers: 0, or 1 for a file that keeps the multi-token-prediction block; as published by default.

    Raises:
        ProfileError: unknown model or quantisation.
        InputError: more layers than the model has, or fewer than two.
    """
    facts = model_facts(model)
    hyper = facts["hyper_parameters"]
    full, as_published = hyper["n_layer"], hyper["n_nextn_layers"]
    n_nextn = as_published if n_nextn_layers is None else n_nextn_layers
    n_main = full if n_layer is None else n_layer
    if not 2 <= n_main <= full:
        message = f"{n_main} layers asked, {facts['name']} has {full}"
        raise InputError(message, hint=f"between 2 and {full}")
    recipe = _recipe(facts, quant)
    row = row_named(facts, quant) if recipe is None else None
    if row is not None:
        recipe = _recipe(facts, row.like)
    if recipe is None:
        raise _unknown_quantization(facts, quant)
    shapes = tensor_shapes(facts, n_main, n_nextn)
    tensors = typed(shapes, recipe if row is None else with_changes(recipe, row.changes), full)
    profile = ModelProfile(
        name=facts["name"],
        architecture=facts["architecture"],
        quantization=recipe["name"] if row is None else row.quant,
        n_layer=n_main + n_nextn,
        n_nextn_layers=n_nextn,
        n_layer_dense_lead=hyper["n_layer_dense_lead"],
        n_ctx_train=hyper["n_ctx_train"],
        n_embd=hyper["n_embd"],
        n_ff=hyper["n_ff"],
        n_vocab=hyper["n_vocab"],
        n_expert=hyper["n_expert"],
        n_expert_used=hyper["n_expert_used"],
        n_ff_expert=hyper["n_ff_expert"],
        attention=_attention(hyper),
        tensors=tensors,
        file=None,
        file_bytes=0,
        expert_gating=hyper["expert_gating"],
        compute=_compute_buffers(facts),
        quality_rank=_quality_rank(facts, recipe["name"] if row is None else row.quant),
    )
    if row is None or n_main < full or n_nextn != as_published:
        return replace(profile, file_bytes=profile.tensor_bytes)
    return _published(profile, row, sum(tensor.n_bytes for tensor in typed(shapes, recipe, full)))


def _published(profile: ModelProfile, row: PublishedFile, stock_bytes: int) -> ModelProfile:
    """`profile` as the very file of `row`; where its types are assumed, with its size if that is known.

    What is assumed: the bytes laid on it beyond its rules; where nobody stated a size, the rules' own or the share by
    which published files were seen to differ from their recipe.
    """
    by_rules, assumed = profile.tensor_bytes, 0
    if row.known_by is KnownBy.ASSUMED and row.tensor_bytes is not None:
        profile = replace(profile, tensors=grown(profile.tensors, row.tensor_bytes))
        assumed = abs(row.tensor_bytes - by_rules) + 2 * row.uncertainty_bytes
    elif row.known_by is KnownBy.ASSUMED:
        assumed = by_rules - stock_bytes if row.changes else int(_FILES_DIFFER_BY * by_rules)
    return replace(
        profile,
        file_bytes=row.n_bytes if row.n_bytes is not None else profile.tensor_bytes,
        sha256=row.sha256,
        download=row.reference,
        assumed_bytes=assumed,
    )


def published_as(profile: ModelProfile) -> PublishedFile | None:
    """The file that is fetched for a profile of the catalog; None when none is listed."""
    facts = model_facts(profile.name)
    rows = published_rows(facts)
    own = next((row for row in rows if row.reference == profile.download), None)
    return own or row_named(facts, profile.quantization)


def better_quantizations(profile: ModelProfile) -> tuple[str, ...]:
    """Quantisations of the catalog one quality above `profile`, or larger ones of the best quality."""
    if profile.quality_rank is None or profile.name not in model_names():
        return ()
    facts = model_facts(profile.name)
    known = {recipe["name"] for recipe in facts["quantizations"]["recipes"]}
    groups: list[list[str]] = facts["quality"]["groups"]
    above = groups[max(0, profile.quality_rank - 1)]
    if profile.quality_rank:
        return tuple(name for name in above if name in known)
    return tuple(above[: above.index(profile.quantization)]) if profile.quantization in above else ()


def model_names() -> tuple[str, ...]:
    """Models of the catalog, the default first."""
    names = shipped_names("models", ".yaml")
    return (DEFAULT_MODEL, *(name for name in names if name != DEFAULT_MODEL and name not in _TABLES))


def with_catalog_facts(profile: ModelProfile) -> ModelProfile:
    """A profile read from a file's header, with what the catalog knows of its kind.

    Compute-buffer coefficients belong to the shapes of the graph: they are lent only to files whose shapes are a
    catalog model's, whatever their quantisation and number of layers.
    """
    for name in model_names():
        facts = model_facts(name)
        if _same_shapes(profile, facts):
            return replace(
                profile,
                name=facts["name"],
                compute=_compute_buffers(facts),
                quality_rank=_quality_rank(facts, _catalog_name(facts, profile.quantization)),
            )
    return profile


def _same_shapes(profile: ModelProfile, facts: Mapping[str, Any]) -> bool:
    hyper = facts["hyper_parameters"]
    names = ("n_embd", "n_vocab", "n_ff", "n_expert")
    same = all(getattr(profile, name) == hyper[name] for name in names)
    return same and profile.architecture == facts["architecture"] and profile.attention == _attention(hyper)


def _catalog_name(facts: Mapping[str, Any], quant: str) -> str:
    """The catalog's spelling of a quantisation name."""
    return _names(facts).get(quant.lower(), quant)
