"""Less than planned: which knob gives way, that pins do not, and what is learned from running out."""

import dataclasses
import re

import pytest

from glmplan.commands.plan import make_plan, surroundings_of
from glmplan.commands.situation import situation_of
from glmplan.engine import Engine, EngineKind
from glmplan.errors import NothingFits
from glmplan.placement import FlashAttention
from glmplan.plan import Pins, Plan, PlanRequest
from glmplan.planner.judging import Judge
from glmplan.planner.reserves import counting, lasting_name, reason, to_learn
from glmplan.planner.spaces import spaces_of
from glmplan.planner.step_down import Shortage, less_bytes, step_down
from glmplan.profiles.recipes import catalog_profile
from glmplan.reserve import Reserve
from glmplan.step_down import Knob, StepDown
from glmplan.units import GIB, MIB

GPU = ("gpu:16GiB", "64GiB")
CPU = ("cpu:32GiB", None)


def planned(machine: tuple[str, str | None], **options: str) -> Plan:
    return make_plan(situation_of(*machine), quant="q4_K_M", **options)  # type: ignore[arg-type]


def judge_of(machine: tuple[str, str | None], plan: Plan) -> Judge:
    here = situation_of(*machine)
    pins = plan.pins or Pins()
    request = PlanRequest(
        machine=here.machine, n_ctx=pins.n_ctx, cache_type=pins.cache_type, depth_tokens=plan.speed.depth_tokens
    )
    return Judge(catalog_profile("q4_K_M"), surroundings_of(here, request), request)


def stepped(
    machine: tuple[str, str | None], plan: Plan, device: str, *, steps_before: int = 0, serving: bool = False
) -> tuple[Plan, StepDown]:
    shortage = Shortage(device=device, because="std::bad_alloc", steps_before=steps_before, serving=serving)
    return step_down(plan, judge_of(machine, plan), shortage)


def knobs(step: StepDown) -> set[Knob]:
    return {change.knob for change in step.changes}


def test_on_a_gpu_experts_go_first() -> None:
    plan = planned(GPU, n_ctx="32768", cache_type="f16")
    less, step = stepped(GPU, plan, "gpu0")
    assert {Knob.CACHE_TYPE, Knob.CONTEXT} & knobs(step) == set()
    assert Knob.EXPERTS in knobs(step)
    assert less.placement.n_ctx == 32768
    saved = step.needed_bytes_before - step.needed_bytes_after
    assert saved >= less_bytes(step.needed_bytes_before, 0) - MIB
    assert all(row.margin_bytes >= 0 for row in less.memory.devices)
    assert less.memory.devices[0].margin_bytes >= saved
    assert step.decode_tokens_per_s_after < step.decode_tokens_per_s_before
    assert (step.number, step.device, step.because) == (1, "gpu0", "std::bad_alloc")


def test_each_further_step_frees_twice_as_much() -> None:
    plan = planned(GPU, n_ctx="32768")
    freed: list[int] = []
    for steps_before in range(3):
        plan, step = stepped(GPU, plan, "gpu0", steps_before=steps_before)
        assert step.number == steps_before + 1
        freed.append(step.needed_bytes_before - step.needed_bytes_after)
    assert freed[0] < freed[1] < freed[2]


def test_without_a_gpu_the_cache_type_goes_first_then_the_context() -> None:
    plan = planned(CPU, n_ctx="max", cache_type="auto")
    plan = dataclasses.replace(
        plan,
        placement=dataclasses.replace(
            plan.placement, n_ctx=65536, cache_type_k="f16", cache_type_v="f16", cache_ram_bytes=GIB
        ),
        pins=None,
    )
    less, step = stepped(CPU, plan, "host")
    assert knobs(step) == {Knob.PROMPT_CACHE, Knob.CACHE_TYPE}
    assert (less.placement.cache_type_k, less.placement.n_ctx, less.placement.cache_ram_bytes) == ("q8_0", 65536, 0)
    shorter, step = stepped(CPU, less, "host", steps_before=1)
    assert knobs(step) == {Knob.CONTEXT}
    assert 2048 <= shorter.placement.n_ctx < 65536
    assert shorter.speed.depth_tokens <= shorter.placement.n_ctx
    assert shorter.prices == ()  # those were the other plan's


def test_while_it_serves_the_prompt_cache_alone_goes_first() -> None:
    plan = planned(CPU, n_ctx="8192")
    assert plan.placement.cache_ram_bytes > 256 * MIB
    less, step = stepped(CPU, plan, "host", serving=True)
    assert knobs(step) == {Knob.PROMPT_CACHE}
    assert less.placement == dataclasses.replace(plan.placement, cache_ram_bytes=0)


def test_a_pinned_context_stays_and_the_type_gives_way() -> None:
    plan = planned(CPU, n_ctx="65536")
    plan = dataclasses.replace(
        plan, placement=dataclasses.replace(plan.placement, cache_type_k="f16", cache_type_v="f16")
    )
    less, step = stepped(CPU, plan, "host")
    assert less.placement.n_ctx == 65536
    assert Knob.CACHE_TYPE in knobs(step)
    with pytest.raises(NothingFits, match="pinned by the plan") as caught:
        stepped(CPU, less, "host", steps_before=1)
    would_fit = re.fullmatch(r"plan again with --n-ctx (\d+)", caught.value.hint)
    assert would_fit is not None
    assert 2048 <= int(would_fit[1]) < 65536
    assert caught.value.facts["would_fit"] == [f"--n-ctx {would_fit[1]}"]


def test_with_everything_pinned_both_ways_out_are_named() -> None:
    plan = planned(CPU, n_ctx="65536", cache_type="f16")
    with pytest.raises(NothingFits) as caught:
        stepped(CPU, plan, "host")
    assert caught.value.hint.startswith("plan again with --cache-type q8_0 or with --n-ctx ")


def test_when_nothing_is_left_it_says_so() -> None:
    plan = planned(CPU, n_ctx="max")
    bare = dataclasses.replace(plan.placement, n_ctx=2048, cache_type_k="q8_0", cache_type_v="q8_0", cache_ram_bytes=0)
    with pytest.raises(NothingFits, match="nothing is left to give up"):
        stepped(CPU, dataclasses.replace(plan, placement=bare, pins=None), "host")


def test_a_plan_remembers_what_was_asked_for() -> None:
    asked = planned(GPU, n_ctx="16k", cache_type="q8_0").pins
    assert asked == Pins(quant="q4_K_M", n_ctx=16384, cache_type="q8_0", n_parallel=1)
    free = make_plan(situation_of(*GPU), n_ctx="max").pins
    assert free is not None
    assert (free.quant, free.n_ctx, free.cache_type) == (None, None, None)


def reserve(device: str, build: str = "b1", reserve_bytes: int = GIB) -> Reserve:
    return Reserve(
        engine="llama-server", build=build, device=device, reserve_bytes=reserve_bytes,
        learned_at="2026-01-02T03:04:05Z", because="std::bad_alloc",
    )  # fmt: skip


def test_a_reserve_counts_for_its_build_and_device_only() -> None:
    machine = situation_of(*GPU).machine
    engine = Engine(kind=EngineKind.LLAMA_SERVER, path="/llama-server", version="b1", build="b1")
    gpu = lasting_name(machine, "gpu0")
    known = (reserve(gpu), reserve("host", reserve_bytes=2 * GIB), reserve("another"), reserve("host", build="b2"))
    found = counting(machine, engine, known)
    assert {device: kept.reserve_bytes for device, kept in found.items()} == {"gpu0": GIB, "host": 2 * GIB}
    assert counting(machine, None, known) == {}
    assert "1.0 GiB more stay free" in reason("gpu0", known[0])
    assert "2026-01-02" in reason("gpu0", known[0])
    plain = spaces_of(machine)
    kept = spaces_of(machine, more_reserve_bytes={device: one.reserve_bytes for device, one in found.items()})
    assert plain.gpus[0].usable_bytes - kept.gpus[0].usable_bytes == GIB
    assert plain.host.usable_bytes - kept.host.usable_bytes == 2 * GIB


def test_nothing_is_learned_when_others_took_the_memory() -> None:
    assert to_learn(usable_bytes=10, needed_bytes=11, less_bytes=3) is None
    assert to_learn(usable_bytes=20, needed_bytes=11, less_bytes=3) == 12  # so that 8 are left


def test_a_smaller_cache_type_brings_flash_attention_with_it() -> None:
    plan = planned(CPU, n_ctx="65536")
    off = dataclasses.replace(
        plan.placement, cache_type_k="f16", cache_type_v="f16", flash_attn=FlashAttention.OFF, cache_ram_bytes=0
    )
    less, step = stepped(CPU, dataclasses.replace(plan, placement=off), "host")
    assert knobs(step) == {Knob.FLASH_ATTENTION, Knob.CACHE_TYPE}
    assert less.placement.flash_attn is FlashAttention.ON
