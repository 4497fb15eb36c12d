"""The publisher's own table of memory and machines, as plans say it; where a plan differs, it says why."""

from dataclasses import replace

import pytest

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import Situation, situation_of
from glmplan.plan import Plan


def old_mac(on: str) -> Situation:
    """A Mac whose Metal gives two thirds of the memory, as up to macOS 15."""
    here = situation_of(on, None)
    gpu = here.machine.gpus[0]
    limit = (gpu.memory_total_bytes or 0) * 2 // 3
    gpu = replace(gpu, memory_limit_bytes=limit, memory_usable_bytes=min(limit, gpu.memory_free_bytes or limit))
    system = replace(here.machine.os, version="15.5")
    return replace(here, machine=replace(here.machine, os=system, gpus=(gpu,)))


@pytest.mark.parametrize(
    ("on", "quant"),
    [
        ("gpu:24GiB", "q4_K_M"),
        ("rtx-3090", "q4_K_M"),
        ("rtx-4090", "q4_K_M"),
        ("apple-m1-max:32", "q4_K_M"),
        ("apple-m2:24", "q4_K_M"),
        ("apple-m3:24", "q4_K_M"),
        ("apple-m4:24", "q4_K_M"),
        ("cpu:24GiB", "q4_K_M"),
        ("gpu:40GiB", "q8_0"),
        ("gpu:48GiB", "q8_0"),
        ("apple-m4-max:64", "q8_0"),
        ("gpu:80GiB", "q8_0"),
    ],
)
def test_memory_and_the_file_it_is_for(on: str, quant: str) -> None:
    plan = make_plan(situation_of(on, None))
    assert plan.model.quantization == quant
    assert plan.placement.n_ctx >= 32768 or on == "cpu:24GiB"


def test_bf16_can_run_from_72_gb_on_and_the_plan_says_why_q8_0_is_chosen() -> None:
    chosen = make_plan(situation_of("gpu:80GiB", "128GiB"))
    assert "bf16 also fits, is slower and gives the same answers" in chosen.reasons[0]
    assert "KL divergence 0.0011" in chosen.reasons[0]
    asked = make_plan(situation_of("gpu:72GiB", "128GiB"), quant="bf16")
    assert asked.model.quantization == "bf16"
    assert asked.placement.n_ctx >= 32768
    assert not asked.placement.override_tensor


def test_a_24_gb_mac_with_the_older_limit_is_told_what_to_do() -> None:
    plan: Plan = make_plan(old_mac("apple-m2:24"))
    assert plan.model.quantization == "q4_K_M"
    told = next(warning for warning in plan.warnings if warning.startswith("Metal's limit of 16.0 GiB"))
    assert "sudo sysctl iogpu.wired_limit_mb=20480" in told
    assert "off the GPU" in told


def test_a_file_with_an_mtp_block_is_told_what_drafting_would_give() -> None:
    from glmplan.commands.plan import surroundings_of
    from glmplan.plan import PlanRequest
    from glmplan.planner.planning import make_plan as decide
    from glmplan.profiles.recipes import catalog_profile

    here = situation_of("h100", "128GiB")
    request = PlanRequest(machine=here.machine, quant="q8_0")
    model = catalog_profile("q8_0", n_nextn_layers=1)
    plan = decide([model], surroundings_of(here, request), request, engine=None, created_at="2026-01-01T00:00:00+00:00")
    assert not plan.placement.load_mtp
    assert plan.placement.n_gpu_layers == 49
    assert any(reason.startswith("MTP is off: one drafted token") for reason in plan.reasons)
    price = next(price for price in plan.prices if "MTP block" in price.step)
    assert price.decode_tokens_per_s is not None
    assert price.decode_tokens_per_s.basis == "assumed"
    assert price.decode_tokens_per_s.value > plan.speed.decode_tokens_per_s.value


def test_drafting_is_on_where_the_least_it_may_give_is_a_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    from glmplan.commands.plan import surroundings_of
    from glmplan.plan import PlanRequest
    from glmplan.planner import variants
    from glmplan.planner.memory import MemoryModel
    from glmplan.planner.planning import make_plan as decide
    from glmplan.profiles.recipes import catalog_profile

    here = situation_of("h100", "128GiB")
    request = PlanRequest(machine=here.machine, quant="q8_0")
    model, around = catalog_profile("q8_0", n_nextn_layers=1), surroundings_of(here, request)
    without = decide([model], around, request, engine=None, created_at="")
    monkeypatch.setattr(variants, "LEAST_SHARE", 1.0)
    plan = decide([model], around, request, engine=None, created_at="")
    assert plan.placement.load_mtp
    assert not any("MTP is off" in reason for reason in plan.reasons)
    # The block, a layer of cache and the draft's compute buffers are in its ledger.
    memory = MemoryModel(model, around.spaces)
    more = sum(d.needed_bytes for d in plan.memory.devices) - sum(d.needed_bytes for d in without.memory.devices)
    block = sum(tensor.n_bytes for tensor in model.tensors if tensor.name.startswith("blk.47."))
    draft_gpus, draft_host = memory.draft_bytes(plan.placement)
    assert more >= block + sum(draft_gpus) + draft_host
    assert draft_gpus[0] > plan.placement.n_ctx * 1152
    assert plan.speed.decode_tokens_per_s.basis == "assumed"
    assert plan.speed.decode_tokens_per_s.low < without.speed.decode_tokens_per_s.value
