"""What a plan says of itself: its reasons follow what was chosen."""

import re

import pytest

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import situation_of
from glmplan.placement import FlashAttention
from glmplan.workload import Objective


@pytest.mark.parametrize("objective", [Objective.PREFILL_SPEED, Objective.BALANCED, Objective.DECODE_SPEED])
@pytest.mark.parametrize("on", ["cpu:64GiB", "gpu:24GiB"])
def test_a_plan_tells_what_it_did_with_flash_attention(on: str, objective: Objective) -> None:
    plan = make_plan(situation_of(on, "64GiB" if on.startswith("gpu") else None), objective=objective)
    told = " ".join(plan.reasons)
    is_off = plan.placement.flash_attn is FlashAttention.OFF
    assert is_off == (on.startswith("cpu") and objective is Objective.PREFILL_SPEED)
    assert ("flash attention is off" in told) == is_off
    assert not (is_off and "flash attention is on" in told)


def test_a_forced_plan_says_what_is_short_and_nothing_negative() -> None:
    for on, ram in (("cpu:8GiB", None), ("gpu:4GiB", "8GiB"), ("gpu:8GiB,8GiB", "8GiB")):
        quant = "q8_0" if on.startswith("gpu") else "auto"
        plan = make_plan(situation_of(on, ram), force=True, quant=quant)
        assert plan.reasons[0].startswith("nothing fits")
        assert any("short: this plan does not fit" in warning for warning in plan.warnings)
        assert not re.search(r" -\d", " ".join((*plan.reasons, *plan.warnings)))
