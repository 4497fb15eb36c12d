"""What a race says: speeds of arms, the noise floor, and which configuration is shipped; pure.

A challenger wins if it was faster than the plan in every round of the final, and in the median by more than the noise.
Nothing is shipped that the final measured slower than a rival; where the difference is noise, the other speed decides.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

LEAST_ROUNDS: Final = 4


class Goal(StrEnum):
    """What is to be fast."""

    DECODE = "decode"
    PREFILL = "prefill"
    BALANCED = "balanced"


class Role(StrEnum):
    """Why a configuration runs."""

    PLAN = "plan"
    NEIGHBOUR = "neighbour"
    COMBINATION = "combination"
    RIVAL = "rival"


class Phase(StrEnum):
    """When a run took place."""

    NOISE = "noise"
    HEATS = "heats"
    FINAL = "final"


class Outcome(StrEnum):
    """How a race ended."""

    TUNED = "tuned"
    KEPT = "kept"
    RIVAL = "rival"
    RIVAL_EVEN = "rival_even"
    NO_TIME = "no_time"


REASONS: Final = {
    Outcome.TUNED: "faster than the plan in every round of the final, and by more than the noise",
    Outcome.KEPT: "nothing is faster than the plan by more than the noise: it stays",
    Outcome.RIVAL: "a rival beats the plan and every challenger: its configuration is taken, pinned",
    Outcome.RIVAL_EVEN: "a rival is as fast, and measured no slower: its configuration is taken, pinned",
    Outcome.NO_TIME: "the time was over before anything was proved: the plan stays",
}


@dataclass(frozen=True, slots=True)
class Speeds:
    """What one run measured, tokens per second."""

    prefill: float
    decode: float


@dataclass(frozen=True, slots=True)
class Wish:
    """The goal, the request that a balanced goal is the time of, and what share of the other speed may be paid."""

    goal: Goal
    prompt_tokens: int
    output_tokens: int
    may_cost: float = 0.0

    def speed(self, speeds: Speeds) -> float:
        """What is to be as large as possible; requests per second where the goal is balanced."""
        if self.goal is Goal.DECODE:
            return speeds.decode
        if self.goal is Goal.PREFILL:
            return speeds.prefill
        return 1 / (self.prompt_tokens / speeds.prefill + self.output_tokens / speeds.decode)

    def other(self, speeds: Speeds) -> float:
        """The speed that is not to be paid with; where the goal weighs both, what it weighs."""
        return {Goal.DECODE: speeds.prefill, Goal.PREFILL: speeds.decode}.get(self.goal, self.speed(speeds))


@dataclass(frozen=True, slots=True)
class Arm:
    """One configuration; `knobs` are those it turns, its own `name` is unique."""

    name: str
    role: Role
    knobs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of one arm."""

    arm: str
    phase: Phase
    round: int
    speeds: Speeds


@dataclass(frozen=True, slots=True)
class Floor:
    """The widest difference between two runs of the same plan, as a share (0.02: two per cent)."""

    runs: int
    wished: float
    other: float
    prefill: float
    decode: float

    @classmethod
    def of(cls, runs: Sequence[Speeds], wish: Wish) -> "Floor":
        """The floor from runs of the same configuration."""
        return cls(
            runs=len(runs),
            wished=_widest(runs, wish.speed),
            other=_widest(runs, wish.other),
            prefill=_widest(runs, lambda speeds: speeds.prefill),
            decode=_widest(runs, lambda speeds: speeds.decode),
        )


def of_medians(floor: float, rounds: int) -> float:
    """How far medians over `rounds` lie apart by noise: nearer than two single runs, by the root of a third of them."""
    return floor * math.sqrt(3 / max(3, rounds))


def _widest(runs: Sequence[Speeds], of: Callable[[Speeds], float]) -> float:
    values = [of(speeds) for speeds in runs]
    return max(values) / min(values) - 1 if values else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is shipped, and how that came."""

    shipped: Arm
    outcome: Outcome
    floor: Floor
    rounds: int
    best_rival: Arm | None

    @property
    def won(self) -> bool:
        """Whether what is shipped beat the plan beyond the noise."""
        return self.outcome in {Outcome.TUNED, Outcome.RIVAL}


class LastRounds:
    """The last rounds of a race; arms without a run in every round do not count."""

    def __init__(
        self, arms: Sequence[Arm], runs: Sequence[Run], floor: Floor, wish: Wish, *, out_of_time: bool = False
    ) -> None:
        """`arms` has the plan among them; `out_of_time` when the final could not be run."""
        last = [run for run in runs if run.phase is Phase.FINAL]
        by_round = sorted({run.round for run in last})
        table = {arm.name: {run.round: run.speeds for run in last if run.arm == arm.name} for arm in arms}
        # The last round may have been cut short for some: only whole rounds are compared.
        entered = [arm for arm in arms if table[arm.name]]
        self.rounds = [number for number in by_round if all(number in table[arm.name] for arm in entered)]
        self._table = table
        self._entered = entered if self.rounds else []
        self._plan = next(arm for arm in arms if arm.role is Role.PLAN)
        self._floor = floor
        self._wish = wish
        self._out_of_time = out_of_time

    def verdict(self) -> Verdict:
        """What is shipped."""
        rivals = [arm for arm in self._entered if arm.role is Role.RIVAL]
        faster = [arm for arm in self._challengers() if self._beats_plan(arm)]
        # Where the plan itself has less of the other speed than a rival, who has more of both than the plan is no loss.
        no_loss = [arm for arm in faster if self._other(arm) >= self._other(self._plan)]
        # Noise excuses a loss of it only where nobody is faster without one.
        noise = of_medians(self._floor.other, len(self.rounds))
        fair = [arm for arm in faster if self._is_fair(arm, noise)]
        winners = [arm for arm in fair if self._is_fair(arm, 0.0)] or fair or no_loss
        own = max(winners, key=self._wished, default=self._plan)
        rival = max(rivals, key=self._wished, default=None)
        if rival is not None and not self._holds_against(own, rival):
            return self._verdict(rival, Outcome.RIVAL if self._beats_plan(rival) else Outcome.RIVAL_EVEN, rival)
        if own is not self._plan:
            return self._verdict(own, Outcome.TUNED, rival)
        return self._verdict(own, Outcome.NO_TIME if self._out_of_time else Outcome.KEPT, rival)

    def ratio(self, arm: Arm, to: Arm) -> float | None:
        """Median over rounds of how much faster `arm` was; None when one of them did not run."""
        if arm not in self._entered or to not in self._entered:
            return None
        return median(self._ratios(arm, to))

    def _verdict(self, shipped: Arm, outcome: Outcome, rival: Arm | None) -> Verdict:
        return Verdict(shipped, outcome, self._floor, len(self.rounds), rival)

    def _challengers(self) -> list[Arm]:
        return [arm for arm in self._entered if arm.role in {Role.NEIGHBOUR, Role.COMBINATION}]

    def _ratios(self, arm: Arm, to: Arm) -> list[float]:
        own, other = self._table[arm.name], self._table[to.name]
        return [self._wish.speed(own[number]) / self._wish.speed(other[number]) for number in self.rounds]

    def _beats_plan(self, arm: Arm) -> bool:
        if len(self.rounds) < LEAST_ROUNDS:
            return False
        ratios = self._ratios(arm, self._plan)
        return min(ratios) > 1 and median(ratios) > 1 + of_medians(self._floor.wished, len(self.rounds))

    def _is_fair(self, arm: Arm, noise: float) -> bool:
        """Whether the other speed, with `noise` for it, is no less than the plan's and the rivals', or what may be."""
        owners = [each for each in self._entered if each.role in {Role.PLAN, Role.RIVAL}]
        least = max(self._other(each) for each in owners) * (1 - self._wish.may_cost)
        return self._other(arm) * (1 + noise) >= least

    def _holds_against(self, own: Arm, rival: Arm) -> bool:
        """Whether `own` is as fast as a rival; when it is slower by no more than noise, the other speed decides."""
        if self._wished(own) >= self._wished(rival):
            return True
        if self._wished(rival) > self._wished(own) * (1 + self._floor.wished):
            return False
        return self._other(own) > self._other(rival) * (1 + of_medians(self._floor.other, len(self.rounds)))

    def _wished(self, arm: Arm) -> float:
        return median(self._wish.speed(self._table[arm.name][number]) for number in self.rounds)

    def _other(self, arm: Arm) -> float:
        return median(self._wish.other(self._table[arm.name][number]) for number in self.rounds)
