"""A race for a person: the table, the verdict, and what was left alone."""

from glmplan.estimate import Estimate
from glmplan.render.run import SYNTHETIC, table
from glmplan.tuning import TunedArm, TuneReport


def tune_lines(report: TuneReport) -> list[str]:
    """Everybody who ran, who won, and against whom."""
    goal = "the time of a request" if report.goal == "balanced" else report.goal
    rows: list[tuple[str, ...]] = [("CONFIGURATION", "ROLE", "RUNS", "PREFILL tokens/s", "DECODE tokens/s", "TO PLAN")]
    rows += [_row(arm) for arm in report.arms if arm.runs]
    sizes = f"{report.prompt_tokens} tokens of prompt after {report.depth_tokens}, {report.output_tokens} of answer"
    lines = [
        f"goal: {goal}; {sizes}; {report.used_s:.0f} of {report.budget_s:.0f} s",
        f"noise: runs of the same plan differ by up to {100 * report.noise.wished:.1f} % ({report.noise.runs} runs)",
        "",
        *table(rows),
        "",
    ]
    lines += [f"not measured: {arm.name}: {arm.failed}" for arm in report.arms if arm.failed]
    lines.append(f"{report.outcome}: {report.shipped}: {report.why}")
    if report.default_is_best:
        lines.append("the default was best already" if report.outcome != "kept" else "the plan was best already")
    lines += [
        f"beside {rival.name}: prefill {rival.prefill_ratio:.2f}, decode {rival.decode_ratio:.2f} times as fast"
        for rival in report.against_rivals
    ]
    lines += [f"left alone: {each.turned}: {each.why}" for each in report.left_alone]
    return [*lines, *([SYNTHETIC] if report.synthetic else [])]


def _row(arm: TunedArm) -> tuple[str, ...]:
    ratio = "-" if arm.ratio_to_plan is None else f"{arm.ratio_to_plan:.3f}"
    role = f"{arm.role}, {arm.phase}"
    return (arm.name, role, str(arm.runs), _rate(arm.prefill_tokens_per_s), _rate(arm.decode_tokens_per_s), ratio)


def _rate(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.1f} ({estimate.low:.1f} to {estimate.high:.1f})"
