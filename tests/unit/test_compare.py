"""What others would answer, by their rules in closed form, and machines by need."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from fit_oracle import CARDS, FitAnswer, recorded
from fit_score import cards_judge, fit_host_expert_bytes
from hypothesis import given
from hypothesis import strategies as st

from glmplan.commands.compare import comparison_on
from glmplan.commands.what_if import machines_for, parsed
from glmplan.errors import InputError, ObjectiveUnmet
from glmplan.jsonio import dumps
from glmplan.planner.offload import host_expert_bytes
from glmplan.planner.rivals import fit_placement
from glmplan.units import GIB

_ASKED = {"-c 32768": 32768, "-c 0": 202752}
SINGLE = {key: answer for key, answer in recorded().items() if len(CARDS[key[0]]) == 1}


@pytest.mark.parametrize("key", SINGLE)
def test_the_rules_of_fit_in_closed_form_are_the_programs(key: tuple[str, str, str]) -> None:
    """Context within 4 steps of 256 tokens (fit interpolates), experts within one layer."""
    cards, quant, setting = key
    answer: FitAnswer = SINGLE[key]
    judge = cards_judge(cards, quant, setting)
    cache = judge.request.cache_type or "f16"
    found = fit_placement(judge, n_ctx=_ASKED.get(setting), cache=cache)
    one_layer = judge.memory.layers.expert_bytes(1)
    assert abs(found.n_ctx - answer.n_ctx) <= 1024
    assert abs(host_expert_bytes(judge.memory, found) - fit_host_expert_bytes(quant, answer)) <= one_layer


def test_most_of_fits_answers_are_matched_to_the_byte() -> None:
    equal = 0
    for (cards, quant, setting), answer in SINGLE.items():
        judge = cards_judge(cards, quant, setting)
        found = fit_placement(judge, n_ctx=_ASKED.get(setting), cache=judge.request.cache_type or "f16")
        theirs = fit_host_expert_bytes(quant, answer)
        equal += (found.n_ctx, host_expert_bytes(judge.memory, found)) == (answer.n_ctx, theirs)
    assert equal >= 80
    assert len(SINGLE) == 96


@pytest.mark.parametrize(("on", "n_ctx"), [("gpu:16GiB", 4096), ("gpu:24GiB", 32768), ("gpu:48GiB", 202752)])
def test_ollamas_tiers(on: str, n_ctx: int) -> None:
    found = comparison_on(on, None)
    assert next(answer.n_ctx for answer in found.others if answer.name.startswith("Ollama")) == n_ctx


def test_a_16_gb_card_keeps_its_context_and_the_others_are_told_why() -> None:
    found = comparison_on("gpu:16GiB", None)
    fit = next(answer for answer in found.others if "fit" in answer.name)
    assert fit.n_ctx == 4096
    assert found.ours.n_ctx >= 32768
    assert not found.ours.missing_bytes
    assert "before it moves one expert" in fit.where_wrong
    full = next(claim for claim in found.claims if "full attention" in claim.name)
    assert full.bytes_per_token > 7 * 54144
    json.loads(dumps(found))


def test_the_front_has_no_point_that_another_beats() -> None:
    front = comparison_on("gpu:24GiB", None).front
    assert len(front) > 3
    for one, following in pairwise(front):
        assert one.n_ctx < following.n_ctx
        assert one.decode_tokens_per_s.value > following.decode_tokens_per_s.value


def test_machines_by_need_are_cheapest_first_and_reach_it() -> None:
    found = machines_for("n_ctx=64k decode>=30 quant=q4_K_M", None, limit=4)
    sizes = [row.memory_bytes for row in found.machines]
    assert sizes == sorted(sizes)
    assert all(row.n_ctx == 65536 and row.decode_tokens_per_s.value >= 30 for row in found.machines)
    assert all(row.quantization == "q4_K_M" and row.gpu_bytes < 64 * GIB for row in found.machines)


def test_machines_of_which_the_same_is_true_share_a_row() -> None:
    found = machines_for("n_ctx=100k decode>=20", None, limit=12)
    assert len(found.machines) == 12
    assert any(row.also for row in found.machines)
    rows = [dumps(replace(row, on="", also=())) for row in found.machines]
    assert len(set(rows)) == len(rows)


def test_a_need_nobody_reaches_and_needs_nobody_can_read() -> None:
    with pytest.raises(ObjectiveUnmet):
        machines_for("n_ctx=4096 decode>=100000 quant=q4_K_M", None, limit=1)
    for need in ("", "decode=20", "n_ctx>=4", "slots=0", "slots=many"):
        with pytest.raises(InputError):
            machines_for(need, None, limit=1)


@given(st.text(max_size=30))
def test_any_text_as_a_need_is_read_or_refused(need: str) -> None:
    try:
        terms = parsed(need)
    except InputError:
        return
    assert set(terms) <= {"n_ctx", "decode", "prefill", "quant", "slots"}
