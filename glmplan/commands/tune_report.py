"""From a race to its report: every arm's speeds, the rivals beside what is shipped, and the tuned plan."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from glmplan import __version__
from glmplan.commands.tune_race import PLAN, Tuning, kept_for_want_of_pins
from glmplan.estimate import Basis, Estimate, SpeedEstimate
from glmplan.plan import Plan, PlannedDevice, PlannedMemory
from glmplan.planner.verdict import REASONS, Arm, Outcome, Phase, Role, Run, Verdict
from glmplan.tuning import AgainstRival, LeftAlone, NoiseFloor, TunedArm, TuneReport

if TYPE_CHECKING:
    from glmplan.benchmark import BenchSettings
    from glmplan.engine import Engine
    from glmplan.placement import Placement
    from glmplan.planner.neighbours import Untried

_NOT_PINNED = "a rival is as fast or faster, but what it chose cannot be read from its log: the plan stays"


def report_of(
    plan: Plan,
    engine: "Engine",
    settings: "BenchSettings",
    budget_s: float,
    tuning: Tuning,
    verdict: Verdict,
    untried: "Sequence[Untried]",
) -> TuneReport:
    """What was measured, and what follows."""
    race = tuning.race
    placement = tuning.shipped_placement(verdict)
    why = REASONS[verdict.outcome]
    if placement is None or (verdict.shipped.role is Role.RIVAL and not tuning.fits(placement)):
        verdict, why = kept_for_want_of_pins(verdict, race.arms[0]), _NOT_PINNED
        placement = plan.placement
    against = _against_rivals(tuning, verdict)
    made = plan if placement == plan.placement else _tuned_plan(plan, placement, settings, tuning, verdict, against)
    return TuneReport(
        created_at=_now(),
        goal=tuning.wish.goal.value,
        depth_tokens=settings.depths[0],
        prompt_tokens=settings.prompt_tokens,
        output_tokens=settings.output_tokens,
        budget_s=budget_s,
        used_s=race.used_s,
        engine=engine.kind.value,
        engine_version=engine.version,
        machine_fingerprint=plan.machine.fingerprint,
        synthetic=plan.model.synthetic,
        noise=NoiseFloor(
            runs=verdict.floor.runs,
            wished=verdict.floor.wished,
            prefill=verdict.floor.prefill,
            decode=verdict.floor.decode,
        ),
        arms=tuple(_arm(tuning, verdict, arm) for arm in race.arms),
        left_alone=tuple(LeftAlone(turned=each.turned, why=each.why) for each in untried),
        outcome=verdict.outcome.value,
        shipped=verdict.shipped.name,
        why=why,
        rounds=verdict.rounds,
        default_is_best=verdict.shipped.role is Role.RIVAL or verdict.outcome is Outcome.KEPT,
        against_rivals=against,
        plan=made,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _runs(tuning: Tuning, arm: Arm) -> list[Run]:
    """Runs of the last phase an arm took part in."""
    own = [run for run in tuning.race.runs if run.arm == arm.name]
    last = next(
        (phase for phase in (Phase.FINAL, Phase.HEATS, Phase.NOISE) if any(r.phase is phase for r in own)), None
    )
    return [run for run in own if run.phase is last]


def _arm(tuning: Tuning, verdict: Verdict, arm: Arm) -> TunedArm:
    runs = _runs(tuning, arm)
    last = tuning.race.final(verdict.floor)
    ratio = last.ratio(arm, tuning.race.arms[0]) or tuning.race.gain(arm)
    return TunedArm(
        name=arm.name,
        role=arm.role.value,
        turned=tuning.field.turned.get(arm.name, ""),
        phase=runs[0].phase.value if runs else None,
        runs=len(runs),
        prefill_tokens_per_s=_measured([run.speeds.prefill for run in runs]),
        decode_tokens_per_s=_measured([run.speeds.decode for run in runs]),
        ratio_to_plan=1.0 if arm.name == PLAN else ratio,
        failed=tuning.race.failed.get(arm.name),
    )


def _measured(values: Sequence[float]) -> Estimate | None:
    if not values:
        return None
    return Estimate(value=median(values), low=min(values), high=max(values), basis=Basis.MEASURED)


def _against_rivals(tuning: Tuning, verdict: Verdict) -> tuple[AgainstRival, ...]:
    shipped = _runs(tuning, verdict.shipped)
    return tuple(
        AgainstRival(
            name=arm.name,
            prefill_ratio=median(r.speeds.prefill for r in shipped) / median(r.speeds.prefill for r in runs),
            decode_ratio=median(r.speeds.decode for r in shipped) / median(r.speeds.decode for r in runs),
        )
        for arm in tuning.race.arms
        if arm.role is Role.RIVAL and (runs := _runs(tuning, arm)) and arm.name not in tuning.race.failed
    )


def _tuned_plan(
    plan: Plan,
    placement: "Placement",
    settings: "BenchSettings",
    tuning: Tuning,
    verdict: Verdict,
    against: Sequence[AgainstRival],
) -> Plan:
    """The plan with what won: its ledger anew, its speeds as measured, and what changed and by how much."""
    runs = _runs(tuning, verdict.shipped)
    prefill = _measured([run.speeds.prefill for run in runs])
    decode = _measured([run.speeds.decode for run in runs])
    assert prefill is not None  # noqa: S101 - what is shipped ran in the final
    assert decode is not None  # noqa: S101
    memory = tuning.memory.estimate(placement)
    return replace(
        plan,
        glmplan_version=__version__,
        created_at=_now(),
        placement=replace(placement, engine_build=plan.placement.engine_build),
        memory=PlannedMemory(devices=tuple(PlannedDevice.of(row) for row in memory.devices), basis=memory.basis.value),
        speed=_speed(plan, settings, prefill, decode),
        reasons=(_reason(tuning, verdict, settings), *(_beside(each) for each in against), *plan.reasons),
        alternatives=(),
        prices=(),
    )


def _speed(plan: Plan, settings: "BenchSettings", prefill: Estimate, decode: Estimate) -> SpeedEstimate:
    tokens = plan.workload.prompt_tokens
    return SpeedEstimate(
        depth_tokens=settings.depths[0],
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        ttft_ms=_inverse(prefill, 1000.0 * tokens),
        tpot_ms=_inverse(decode, 1000.0),
    )


def _inverse(rate: Estimate, amount: float) -> Estimate:
    return Estimate(value=amount / rate.value, low=amount / rate.high, high=amount / rate.low, basis=rate.basis)


def _reason(tuning: Tuning, verdict: Verdict, settings: "BenchSettings") -> str:
    shipped = verdict.shipped
    ratio = tuning.race.final(verdict.floor).ratio(shipped, tuning.race.arms[0]) or 1.0
    what = tuning.field.turned.get(shipped.name) or f"as {shipped.name} chooses"
    word = "a request" if tuning.wish.goal.value == "balanced" else tuning.wish.goal.value
    return (
        f"tuned: {what}: {word} {ratio:.2f} times as fast as the plan before at {settings.depths[0]} tokens of depth, "
        f"median of {verdict.rounds} rounds (measured; noise {100 * verdict.floor.wished:.1f} %)"
    )


def _beside(rival: AgainstRival) -> str:
    return (
        f"beside {rival.name}: {rival.prefill_ratio:.2f} times its prefill, {rival.decode_ratio:.2f} times its decode "
        "(measured, same rounds)"
    )
