"""Prices: every step is planned, and what it says is what a plan with that step gives."""

from dataclasses import replace

import pytest

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import Situation, situation_of
from glmplan.machine import GpuProcess
from glmplan.plan import Plan, Price
from glmplan.units import GIB, MIB


def priced(plan: Plan, start: str) -> Price:
    return next(price for price in plan.prices if price.step.startswith(start))


@pytest.fixture(scope="module")
def card() -> Plan:
    return make_plan(situation_of("rtx-4090", "64GiB"))


@pytest.mark.parametrize(
    "start",
    ["202752 tokens", "KV cache q8_0", "q5_K_S instead of q4_K_M", "2 slots", "1 GiB more"],
)
def test_every_step_has_its_price_with_its_numbers(card: Plan, start: str) -> None:
    found = priced(card, start)
    assert found.effect
    assert any(character.isdigit() for character in found.effect)


def test_twice_the_context_costs_what_a_plan_with_it_says(card: Plan) -> None:
    found = priced(card, "202752 tokens")
    there = make_plan(situation_of("rtx-4090", "64GiB"), quant="q4_K_M", n_ctx="202752", cache_type="f16")
    assert found.decode_tokens_per_s is not None
    assert found.decode_tokens_per_s.value == pytest.approx(there.speed.decode_tokens_per_s.value, rel=0.02)


def test_one_quant_up_costs_what_a_plan_with_it_says(card: Plan) -> None:
    found = priced(card, "q5_K_S")
    context = str(card.placement.n_ctx)
    there = make_plan(situation_of("rtx-4090", "64GiB"), quant="q5_K_S", n_ctx=context, cache_type="f16")
    assert found.decode_tokens_per_s is not None
    assert found.decode_tokens_per_s.value == pytest.approx(there.speed.decode_tokens_per_s.value, rel=0.02)
    assert "KL divergence" in found.effect


def test_a_quant_up_from_the_best_is_the_original_and_told_to_be_no_better() -> None:
    found = priced(make_plan(situation_of("h200", None)), "bf16 instead of q8_0")
    assert found.decode_tokens_per_s is not None


def test_one_slot_more_says_what_all_decode_together(card: Plan) -> None:
    found = priced(card, "2 slots")
    alone = card.speed.decode_tokens_per_s.value
    assert found.together_tokens_per_s is not None
    assert alone < found.together_tokens_per_s.value < 2 * alone
    assert found.frees_bytes is not None
    assert -MIB < found.frees_bytes < 0


def test_several_slots_are_told_what_separate_caches_would_give() -> None:
    plan = make_plan(situation_of("rtx-4090", "64GiB"), n_parallel=4)
    found = priced(plan, "a cache for each slot")
    assert plan.placement.kv_unified
    assert found.together_tokens_per_s is not None
    shared = next(reason for reason in plan.reasons if reason.startswith("4 slots share one cache"))
    assert f"{plan.placement.n_ctx // 4} tokens" in found.effect
    assert "together" in shared


def held(situation: Situation, n_bytes: int, *processes: GpuProcess) -> Situation:
    gpu = situation.machine.gpus[0]
    free = (gpu.memory_free_bytes or 0) - n_bytes
    busy = replace(
        gpu, memory_free_bytes=free, memory_usable_bytes=free, memory_used_bytes=n_bytes, processes=tuple(processes)
    )
    return replace(situation, machine=replace(situation.machine, gpus=(busy, *situation.machine.gpus[1:])))


def test_closing_what_holds_memory_names_it_and_says_what_it_buys() -> None:
    browser = GpuProcess(pid=4242, name="firefox", memory_bytes=3 * GIB)
    here = held(situation_of("rtx-4080", "64GiB"), 4 * GIB, browser)
    found = priced(make_plan(here), "closing what holds 4.0 GiB of gpu0")
    assert "firefox 4242 3.0 GiB" in found.step
    assert "back on the GPU" in found.effect
    assert found.frees_bytes == 4 * GIB
    assert not any(price.step.startswith("closing") for price in make_plan(situation_of("rtx-4080", "64GiB")).prices)


def test_raising_metals_limit_prints_the_line_and_what_it_buys() -> None:
    found = priced(make_plan(situation_of("apple-m2:24", None)), "Metal's limit raised")
    assert "sudo sysctl iogpu.wired_limit_mb=20480" in found.step
    assert "lost at restart" in found.effect
    assert found.frees_bytes is not None
    assert found.frees_bytes > GIB


def test_a_forced_plan_has_no_prices() -> None:
    assert make_plan(situation_of("cpu:8GiB", None), force=True).prices == ()
