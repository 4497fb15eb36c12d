"""Which of several configurations is fastest, by measuring as little as that takes: successive halving; pure.

1. Noise: the plan against itself. The *floor* is the widest difference between two of these runs.
2. Heats: the rivals, for what they have of the other speed; then every neighbour once beside the plan, which runs
   again after every few of them; the slower half leaves, the rest runs again, until few are left or the time for heats
   is over. Winners that turn different knobs are combined, and what costs the other speed with what gains it: by what
   they promise together, and then by what was measured of them together.
3. Final: the plan, the best challengers and the rivals in turn, the order shifted each round, measured anew: what won a
   heat by luck does not keep its luck. `glmplan.planner.verdict` says what it means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Final

from glmplan.planner.verdict import LEAST_ROUNDS, Arm, Floor, Goal, LastRounds, Phase, Role, Run, Speeds, Verdict, Wish

NOISE_RUNS: Final = 4
MOST_ROUNDS: Final = 7
_PLAN_AGAIN_AFTER: Final = 4
_CHALLENGERS: Final = {Goal.DECODE: 3, Goal.PREFILL: 3, Goal.BALANCED: 2}
# Knobs that are put together: by four the products of single runs are mostly noise.
_MOST_TOGETHER: Final = 4
_MOST_TOGETHER_OF: Final = 10
_MOST_JOINED: Final = 4
# How often what costs too much gets one knob more, from how many arms, by how many knobs each.
_STEPS: Final = 2
_MENDED: Final = 2
_PARTNERS: Final = 3


class Failed(Exception):
    """An arm that cannot be measured; its text says why."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a race asks of the world, so that its rules can be tried on arms that are only numbers.

    `measure` is one run of an arm, and raises `Failed`. `combine` makes one arm of the knobs of several, None when
    that does not fit or is in the race already. `clock` is seconds, rising; `say` is told what happens.
    """

    measure: Callable[[Arm, Phase], Speeds]
    combine: Callable[[Sequence[Arm]], Arm | None]
    clock: Callable[[], float]
    budget_s: float
    say: Callable[[str], None] = lambda _: None


@dataclass(slots=True)
class _Watch:
    """How much time there is, and how long a run takes."""

    clock: Callable[[], float]
    budget_s: float
    began_s: float
    run_s: list[float] = field(default_factory=list[float])

    def has_time_for(self, runs: int) -> bool:
        typical_s = median(self.run_s) if self.run_s else 0.0
        return self.used_s + runs * typical_s <= self.budget_s

    @property
    def used_s(self) -> float:
        return self.clock() - self.began_s


class Race:
    """One race; `runs` are all measurements in their order, `failed` arms with the reason."""

    def __init__(self, arms: Sequence[Arm], wish: Wish, course: Course) -> None:
        """Prepare a race of `arms`: the plan, neighbours and rivals."""
        self.arms = list(arms)
        self.runs: list[Run] = []
        self.failed: dict[str, str] = {}
        self._wish = wish
        self._seats = _CHALLENGERS[wish.goal]  # in the final
        self._course = course
        self._watch = _Watch(course.clock, course.budget_s, course.clock())
        self._plan = next(arm for arm in arms if arm.role is Role.PLAN)
        self._out_of_time = False

    @property
    def used_s(self) -> float:
        """Seconds since the start."""
        return self._watch.used_s

    def run(self) -> Verdict:
        """The whole race.

        Raises:
            Failed: the plan itself cannot be measured.
        """
        floor = self._noise()
        self._run_final(self._heats(floor))
        return self.final(floor).verdict()

    def final(self, floor: Floor) -> LastRounds:
        """The last rounds, as far as they went."""
        arms = [arm for arm in self.arms if arm.name not in self.failed]
        return LastRounds(arms, self.runs, floor, self._wish, out_of_time=self._out_of_time)

    def gain(self, arm: Arm) -> float | None:
        """Median of how much faster an arm was than the plan beside it in the heats; None when it never ran."""
        ratios = [self._wish.speed(own) / self._wish.speed(plan) for own, plan in self._pairs(arm)]
        return median(ratios) if ratios else None

    def _noise(self) -> Floor:
        for number in range(NOISE_RUNS):
            self._one(self._plan, Phase.NOISE, number)
        floor = Floor.of([run.speeds for run in self.runs], self._wish)
        self._course.say(f"noise: the plan differs from itself by up to {100 * floor.wished:.1f} %, {floor.runs} runs")
        return floor

    def _final_runs(self, challengers: int) -> int:
        """Runs that a final of the fewest rounds takes."""
        return LEAST_ROUNDS * (1 + len(self._of(Role.RIVAL)) + challengers)

    def _heats(self, floor: Floor) -> list[Arm]:
        """The best challengers, best first, combinations among them."""
        racing, number = self._of(Role.NEIGHBOUR), 0
        if racing:
            self._heat(self._of(Role.RIVAL), number)  # what the other speed is held against
        while racing and self._watch.has_time_for(2 + self._final_runs(self._seats)):
            racing = self._ranked(self._heat(racing, number))
            number += 1
            if len(racing) <= self._seats:
                break
            racing = racing[: max(self._seats, math.ceil(len(racing) / 2))]
        for make in (self._combinations, *(self._mended,) * _STEPS):
            made = make(floor)
            if made and self._watch.has_time_for(1 + len(made) + self._final_runs(self._seats)):
                self._heat(made, number)
                number += 1
        return self._hopeful(floor)

    def _hopeful(self, floor: Floor) -> list[Arm]:
        """The fastest, the fastest of knobs that cost nothing, that which pays for its cost, most of both speeds."""
        tried = [*self._of(Role.NEIGHBOUR), *self._of(Role.COMBINATION)]
        hopeful = [arm for arm in self._ranked(tried) if (self.gain(arm) or 0.0) > 1 and self._is_fair(arm, floor)]
        alone = self._of(Role.NEIGHBOUR)
        dear = [arm.knobs for arm in alone if self._other_gain(arm) * (1 + floor.other / 2) < 1]
        harmless = [arm for arm in hopeful if not arm.knobs & frozenset[str]().union(*dear)]
        # Of many that were measured once, those that seem to cost nothing are the lucky ones.
        doubt = {arm: floor.other / 2 / math.sqrt(len(self._pairs(arm))) for arm in hopeful}
        paid = [arm for arm in hopeful if self._other_gain(arm) >= self._other_asked() * (1 + doubt[arm])]
        even = sorted(hopeful, key=self._of_both, reverse=True)
        seats = dict.fromkeys(arm for arms in (hopeful[:1], harmless[:1], paid[:1], even) for arm in arms)
        return list(seats)[: self._seats]

    def _heat(self, arms: Sequence[Arm], number: int) -> list[Arm]:
        """Run `arms` once each, the plan before and in between; those that there was time for."""
        ran: list[Arm] = []
        for place, arm in enumerate(arms):
            if not self._watch.has_time_for(1 + self._final_runs(self._seats)):
                self._course.say(f"no time left for {len(arms) - place} neighbours")
                break
            if place % _PLAN_AGAIN_AFTER == 0:
                self._one(self._plan, Phase.HEATS, number)
            self._one(arm, Phase.HEATS, number)
            ran.append(arm)
        return ran

    def _combinations(self, floor: Floor) -> list[Arm]:
        """Winners of different knobs together, the best two of them, and a winner with what pays for its cost."""
        best: list[Arm] = []
        for arm in self._ranked(self._of(Role.NEIGHBOUR)):
            promising = (self.gain(arm) or 0.0) > 1 + floor.wished / 2 and self._is_fair(arm, floor)
            if promising and not any(other.knobs & arm.knobs for other in best):
                best.append(arm)
        groups = [best, best[:2]] if len(best) > 2 else [best]
        return self._made([*groups, *self._joined(floor)])

    def _mended(self, floor: Floor) -> list[Arm]:
        """Arms faster than the plan that cost of the other speed what may not be paid, each with one knob more.

        From those that have most of both speeds: what a step makes is where the next begins, because knobs that gain
        little alone may pay together.
        """
        asked = self._other_asked()
        tried = [*self._of(Role.NEIGHBOUR), *self._of(Role.COMBINATION)]
        faster = [arm for arm in tried if (self.gain(arm) or 0.0) > 1 + floor.wished / 2]
        costly = [arm for arm in faster if self._other_gain(arm) * (1 + floor.other / 2) < asked]
        paying = sorted(self._of(Role.NEIGHBOUR), key=self._other_gain, reverse=True)
        groups: list[list[Arm]] = []
        for arm in sorted(costly, key=self._of_both, reverse=True)[:_MENDED]:
            groups += [[arm, other] for other in paying if _differ([arm, other])][:_PARTNERS]
        return self._made(groups)

    def _made(self, groups: Sequence[Sequence[Arm]]) -> list[Arm]:
        """Arms of several arms' knobs, those that fit and that nobody stands for yet."""
        found: list[Arm] = []
        for group in groups:
            made = self._course.combine(group) if len(group) > 1 else None
            if made is not None:
                self.arms.append(made)
                found.append(made)
        return found

    def _joined(self, floor: Floor) -> list[list[Arm]]:
        """Arms that by products of ratios promise most together, none of them less of both speeds than another group.

        One that costs the other speed is no winner alone; beside one that gains it, both may be.
        """
        known = [(arm, gain, self._other_gain(arm)) for arm in self._of(Role.NEIGHBOUR) if (gain := self.gain(arm))]
        moving = [each for each in known if each[1] > 1 + floor.wished / 2 or each[2] > 1 + floor.other / 2]
        moving = sorted(moving, key=lambda each: each[1] * each[2], reverse=True)[:_MOST_TOGETHER_OF]
        asked = self._other_asked() / (1 + floor.other / 2)  # what they have together is measured before it counts
        promised: list[tuple[float, float, list[Arm]]] = []
        for size in range(2, _MOST_TOGETHER + 1):
            least = (1 + floor.wished / 2) ** (size - 1)  # one knob more must promise more than noise
            for group in combinations(moving, size):
                arms = [arm for arm, _, _ in group]
                gain, other = math.prod(each[1] for each in group), math.prod(each[2] for each in group)
                if gain > least and other >= asked and _differ(arms):
                    promised.append((gain / least, other, arms))
        return _front(promised)

    def _other_gain(self, arm: Arm) -> float:
        """Median of what an arm had of the other speed, beside the plan."""
        ratios = [self._wish.other(own) / self._wish.other(plan) for own, plan in self._pairs(arm)]
        return median(ratios) if ratios else 1.0

    def _of_both(self, arm: Arm) -> float:
        return (self.gain(arm) or 0.0) * self._other_gain(arm)

    def _is_fair(self, arm: Arm, floor: Floor) -> bool:
        """Whether what an arm costs of the other speed is at most what may be paid, as far as noise tells."""
        own = self._other_gain(arm)
        # No less than a plan that has paid already is no loss; the square is for single runs of both.
        return own >= 1 or own * (1 + floor.other) ** 2 >= self._other_asked()

    def _other_asked(self) -> float:
        """What the final will ask of the other speed, beside the plan's: no less than the plan and the rivals have."""
        theirs = [self._other_gain(rival) for rival in self._of(Role.RIVAL)]
        return max(1.0, median(theirs) if theirs else 1.0) * (1 - self._wish.may_cost)

    def _run_final(self, challengers: Sequence[Arm]) -> None:
        """All rounds that there is time for; fewer than the least would prove nothing, and are not begun."""
        entered = self._with_time(challengers)
        self._out_of_time = not entered
        if len(entered) < 2:
            return
        self._course.say(f"final: {', '.join(arm.name for arm in entered)}")
        for number in range(MOST_ROUNDS):
            entered = [arm for arm in entered if arm.name not in self.failed]
            if len(entered) < 2 or (number >= LEAST_ROUNDS and not self._watch.has_time_for(len(entered))):
                break
            shift = number % len(entered)
            for arm in (*entered[shift:], *entered[:shift]):
                self._one(arm, Phase.FINAL, number)

    def _with_time(self, challengers: Sequence[Arm]) -> list[Arm]:
        """Plan, rivals and as many challengers as the fewest rounds leave time for; nobody when not even those."""
        for count in range(len(challengers), -1, -1):
            if self._watch.has_time_for(self._final_runs(count)):
                return [self._plan, *challengers[:count], *self._of(Role.RIVAL)]
        return []

    def _of(self, role: Role) -> list[Arm]:
        return [arm for arm in self.arms if arm.role is role and arm.name not in self.failed]

    def _ranked(self, arms: Sequence[Arm]) -> list[Arm]:
        known = [(gain, arm) for arm in arms if (gain := self.gain(arm)) is not None]
        return [arm for _, arm in sorted(known, key=lambda pair: pair[0], reverse=True)]

    def _pairs(self, arm: Arm) -> list[tuple[Speeds, Speeds]]:
        """Runs of an arm in the heats, each with the plan's nearest one."""
        places = [place for place, run in enumerate(self.runs) if run.arm == self._plan.name]
        return [
            (run.speeds, self.runs[min(places, key=lambda other: abs(other - place))].speeds)
            for place, run in enumerate(self.runs)
            if run.arm == arm.name and run.phase is Phase.HEATS
        ]

    def _one(self, arm: Arm, phase: Phase, number: int) -> None:
        began_s = self._watch.used_s
        try:
            speeds = self._course.measure(arm, phase)
        except Failed as failure:
            if arm is self._plan:
                raise
            self.failed[arm.name] = str(failure)
            self._course.say(f"{arm.name}: not measured: {failure}")
            return
        self._watch.run_s.append(self._watch.used_s - began_s)
        self.runs.append(Run(arm.name, phase, number, speeds))
        rates = f"prefill {speeds.prefill:.1f}, decode {speeds.decode:.1f} tokens/s"
        self._course.say(f"{phase} {number + 1}, {arm.name}: {rates}")


def _differ(arms: Sequence[Arm]) -> bool:
    """Whether no knob is turned by two of them."""
    return len(frozenset[str]().union(*(arm.knobs for arm in arms))) == sum(len(arm.knobs) for arm in arms)


def _front(promised: Sequence[tuple[float, float, list[Arm]]]) -> list[list[Arm]]:
    """Groups of which no other has more of both speeds: the fastest, then by the product of them."""
    front: list[tuple[float, float, list[Arm]]] = []
    for each in sorted(promised, key=lambda each: each[:2], reverse=True):
        if all(each[1] > other for _, other, _ in front):
            front.append(each)
    rest = sorted(front[1:], key=lambda each: each[0] * each[1], reverse=True)
    return [arms for _, _, arms in (*front[:1], *rest)][:_MOST_JOINED]
