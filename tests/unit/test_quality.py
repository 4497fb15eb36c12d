"""Published divergences as one table: order, ranges, and what nobody published."""

from itertools import pairwise

from glmplan.profiles.quality import quality_table
from glmplan.profiles.recipes import catalog_profile, model_facts, quantization_names
from glmplan.profiles.store import shipped

GROUPS: list[list[str]] = model_facts()["quality"]["groups"]


def kld(name: str) -> float:
    found = quality_table().of_file(name)
    assert found is not None
    assert found.estimate is not None
    return found.estimate.value


def test_the_catalogs_order_of_quality_is_that_of_the_figures() -> None:
    """Groups by their best member: a later group never has a better best."""
    known = [[kld(name) for name in group if quality_table().of_file(name)] for group in GROUPS]
    best = [min(group) for group in known if group]
    assert best == sorted(best)


def test_every_figure_has_a_range_a_basis_and_a_reason() -> None:
    table = quality_table()
    for found in (*table.files.values(), *table.caches.values()):
        assert found.rests_on
        if found.estimate is not None:
            assert found.estimate.low <= found.estimate.value <= found.estimate.high
            assert found.estimate.basis == "assumed"


def test_what_the_studies_say_of_q4_k_m_lies_within_its_range() -> None:
    found = quality_table().of_file("q4_K_M")
    assert found is not None
    assert found.estimate is not None
    figures = [
        float(study["files"]["q4_K_M"]["kld"])
        for study in shipped("models", "quality.yaml")["studies"].values()
        if "q4_K_M" in study["files"]
    ]
    assert len(figures) >= 4
    assert found.estimate.low < min(figures)
    assert max(figures) < found.estimate.high


def test_nobody_can_tell_q8_0_from_bf16() -> None:
    """Its divergence is within a few times what measuring alone gives."""
    assert kld("q8_0") < 4 * quality_table().floor
    assert kld("bf16") == 0


def test_every_study_and_cache_figure_has_its_source() -> None:
    facts = shipped("models", "quality.yaml")
    assert all(study["source"] and study["model"] for study in facts["studies"].values())
    assert all(figure["source"] for figures in facts["caches"].values() for figure in figures)


def test_a_cache_nobody_measured_is_told_so() -> None:
    found = quality_table().of_cache("q4_0")
    assert found is not None
    assert found.estimate is None
    assert "not published" in found.rests_on
    assert quality_table().of_cache("q5_1") is None


def test_the_next_better_quantisation_is_one_of_the_group_above() -> None:
    from glmplan.commands.situation import next_better

    ranks: list[tuple[int, int]] = []
    model = catalog_profile(quantization_names()[-1])
    while (better := next_better(model)) is not None:
        assert better.quality_rank is not None
        assert model.quality_rank is not None
        assert better.quality_rank == max(0, model.quality_rank - 1)
        ranks.append((model.quality_rank, better.quality_rank))
        model = better
    assert model.quantization == "bf16"
    assert all(one[1] == other[0] for one, other in pairwise(ranks))
