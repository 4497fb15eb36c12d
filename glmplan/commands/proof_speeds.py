"""The speeds of a proof: a short prompt first, then as deep as was asked for, each beside the forecast at its depth."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Final

from glmplan.errors import GlmplanError
from glmplan.proof import ProofDepth, SpeedLine
from glmplan.proof_settings import ProofKind

if TYPE_CHECKING:
    from glmplan.launchers.client import Target
    from glmplan.measurement import SpeedSample
    from glmplan.plan import Plan
    from glmplan.planner.judging import Judge
    from glmplan.planner.proof_depth import Paces

_SHORT_PROMPT, _SHORT_OUTPUT = 128, 24
# A prompt this much shorter than wanted was cut by the clock, not by the words it is made of.
_AS_WANTED: Final = 0.95


def measured_short(target: "Target", *, speak: bool) -> "SpeedSample":
    """One quick measurement on an empty context: enough to compare, not a benchmark."""
    from glmplan.benchmark import BenchSettings
    from glmplan.launchers.bench import measure

    if speak:
        sys.stderr.write(f"measuring {_SHORT_PROMPT} tokens of prompt and {_SHORT_OUTPUT} of answer\n")
    settings = BenchSettings(prompt_tokens=_short_tokens(target.n_ctx), output_tokens=_SHORT_OUTPUT, repetitions=1)
    return measure(target, settings, on_sample=lambda _: None)[0]


def _short_tokens(n_ctx: int | None) -> int:
    return min(_SHORT_PROMPT, (n_ctx or _SHORT_PROMPT * 4) // 2)


def filled(
    plan: "Plan", target: "Target", short: "SpeedSample", *, kind: ProofKind, limit_s: float
) -> "tuple[ProofDepth, tuple[SpeedLine, ...]]":
    """How deep the proof went, and what was measured on the way.

    Raises:
        BenchError: nothing could be measured at that depth.
        EngineError: the engine refused or died.
    """
    from glmplan.planner.proof_depth import ProofRoom, choose_depth

    judge = _judge_of(plan)
    room = ProofRoom(
        context_tokens=target.n_ctx or _slot_context(plan),
        output_tokens=_SHORT_OUTPUT,
        short_tokens=_short_tokens(target.n_ctx),
    )
    depth = choose_depth(kind, room, _paces(judge, plan, short), limit_s=limit_s)
    if depth.filled_tokens <= room.short_tokens:
        if kind is ProofKind.AUTO:
            sys.stderr.write(f"proof: {depth.why}\n")
        return depth, (_beside_forecast(judge, plan, short),)
    deep = _measured_deep(target, depth, room.short_tokens)
    reached = deep.depth_tokens + deep.prompt_tokens
    if depth.limit_s is not None and reached < _AS_WANTED * depth.filled_tokens:
        why = f"{depth.why}; the time was up after {reached:,} tokens"
        depth = dataclasses.replace(depth, why=why)
    depth = dataclasses.replace(depth, filled_tokens=reached)
    return depth, tuple(_beside_forecast(judge, plan, sample) for sample in (short, deep))


def _measured_deep(target: "Target", depth: ProofDepth, timed_tokens: int) -> "SpeedSample":
    from glmplan.launchers.filled import Fill, measure_filled
    from glmplan.render.progress import ProgressLine

    sys.stderr.write(f"proof: {depth.why}\n")
    fill = Fill(
        prompt_tokens=depth.filled_tokens,
        timed_tokens=timed_tokens,
        output_tokens=_SHORT_OUTPUT,
        limit_s=depth.limit_s,
    )
    with ProgressLine() as line:
        return measure_filled(
            target, fill, on_fill=lambda done, wanted: line.show(f"filling the context: {done:,} of {wanted:,} tokens")
        )


def _slot_context(plan: "Plan") -> int:
    placement = plan.placement
    return placement.n_ctx if placement.kv_unified else placement.n_ctx // placement.n_parallel


def _judge_of(plan: "Plan") -> "Judge | None":
    """The speed model of the plan's file on this machine; None where the plan cannot be computed again."""
    from glmplan.commands.planned_machine import judge_of, model_of
    from glmplan.commands.situation import situation_of

    try:
        here = situation_of(None, None, engine=plan.placement.engine.value)
        model = model_of(plan)
        return None if model is None else judge_of(plan, model, here)
    except GlmplanError:
        return None


def _paces(judge: "Judge | None", plan: "Plan", short: "SpeedSample") -> "Paces":
    from glmplan.planner.proof_depth import modelled_paces, straight_paces

    return straight_paces(short, plan.speed) if judge is None else modelled_paces(judge, plan.placement, short)


def _beside_forecast(judge: "Judge | None", plan: "Plan", sample: "SpeedSample") -> SpeedLine:
    if judge is not None:
        forecast = judge.speed.estimate(
            plan.placement, depth_tokens=sample.depth_tokens, prompt_tokens=sample.prompt_tokens
        )
        return SpeedLine(measured=sample, forecast=forecast)
    planned = plan.speed
    if planned.depth_tokens == sample.depth_tokens:
        return SpeedLine(measured=sample, forecast=planned)
    why = (
        f"the plan forecasts a depth of {planned.depth_tokens:,} tokens, and the speed model does not give its ledger "
        "again from the file and this machine"
    )
    return SpeedLine(measured=sample, forecast=None, why=why)
