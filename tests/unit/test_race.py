"""Successive halving on arms that are only numbers: noise wins nothing, real gains are found, no rival is faster."""

import math
import random
from collections.abc import Mapping, Sequence
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmplan.planner.race import NOISE_RUNS, Course, Failed, Race
from glmplan.planner.verdict import LEAST_ROUNDS, Arm, Goal, Outcome, Phase, Role, Speeds, Verdict, Wish

# Factors on prefill and decode, by knob or rival.
Effects = Mapping[str, tuple[float, float]]
# Factors on top of these, of knobs turned together.
Together = Sequence[tuple[frozenset[str], tuple[float, float]]]


class Simulation:
    """Arms with true speeds, noise, drift of the machine, and outliers; every run takes a second."""

    def __init__(
        self, seed: int, effects: Effects, *, neighbours: int = 8, rivals: int = 2, noise: float = 0.03,
        drift: float = 0.02, outliers: float = 0.0, budget_s: float = 60, goal: Goal = Goal.DECODE,
        may_cost: float = 0.0, broken: Sequence[str] = (), together: Together = (),
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.effects, self.noise, self.drift, self.outliers = effects, noise, drift, outliers
        self.broken, self.together = broken, together
        self.now = self.level = 0.0
        self.arms = [
            Arm("plan", Role.PLAN),
            *(Arm(f"n{number}", Role.NEIGHBOUR, frozenset({f"n{number}"})) for number in range(neighbours)),
            *(Arm(f"r{number}", Role.RIVAL, frozenset({f"r{number}"})) for number in range(rivals)),
        ]
        self.wish = Wish(goal, prompt_tokens=2048, output_tokens=512, may_cost=may_cost)
        self.race = Race(
            self.arms, self.wish, Course(self.measure, self.combine, lambda: self.now, budget_s)
        )  # fmt: skip

    def measure(self, arm: Arm, phase: Phase) -> Speeds:
        del phase
        self.now += 1
        self.level += self.random.gauss(0, self.drift)
        if arm.name in self.broken:
            raise Failed("broken")
        prefill = math.prod(self.effects.get(knob, (1, 1))[0] for knob in arm.knobs)
        decode = math.prod(self.effects.get(knob, (1, 1))[1] for knob in arm.knobs)
        for knobs, (more_prefill, more_decode) in self.together:
            if knobs <= arm.knobs:
                prefill, decode = prefill * more_prefill, decode * more_decode
        return Speeds(300 * prefill * self._seen(), 20 * decode * self._seen())

    def _seen(self) -> float:
        slow = abs(self.random.gauss(0, 0.3)) if self.random.random() < self.outliers else 0.0
        return math.exp(self.level + self.random.gauss(0, self.noise) - slow)

    def combine(self, arms: Sequence[Arm]) -> Arm | None:
        knobs = frozenset[str]().union(*(arm.knobs for arm in arms))
        known = any(arm.knobs == knobs for arm in self.race.arms)
        return None if known else Arm("+".join(sorted(knobs)), Role.COMBINATION, knobs)

    def final_median(self, arm: Arm) -> float:
        rounds = [run for run in self.race.runs if run.phase is Phase.FINAL]
        whole = self.race.final(self.floor).rounds
        return median(self.wish.speed(run.speeds) for run in rounds if run.arm == arm.name and run.round in whole)

    def run(self) -> Verdict:
        verdict = self.race.run()
        self.floor = verdict.floor
        return verdict


@pytest.mark.parametrize(
    "world",
    [
        {},
        {"noise": 0.1},
        {"outliers": 0.1},
        {"drift": 0.0},
        {"drift": 0.1},
        {"budget_s": 30},
        {"budget_s": 200, "neighbours": 16},
        {"rivals": 0},
        {"goal": Goal.BALANCED},
    ],
)
def test_noise_wins_nothing(world: dict[str, float]) -> None:
    """Where all arms are the same, at least 95 of 100 races say so."""
    races = 200
    won = sum(Simulation(seed, {}, **world).run().won for seed in range(races))  # type: ignore[arg-type]
    assert won <= 0.05 * races


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    effects=st.dictionaries(
        st.sampled_from(["n0", "n1", "n2", "n3", "r0", "r1"]),
        st.tuples(st.floats(0.4, 2.5), st.floats(0.4, 2.5)),
    ),
    goal=st.sampled_from(Goal),
    noise=st.floats(0.0, 0.15),
    budget_s=st.integers(4, 120),
)
def test_nothing_is_shipped_that_was_measured_slower_than_a_rival(
    seed: int, effects: Effects, goal: Goal, noise: float, budget_s: int
) -> None:
    """Slower by less than noise is allowed only to what is faster in the other speed by more than it."""
    world = Simulation(seed, effects, goal=goal, noise=noise, budget_s=budget_s)
    verdict = world.run()
    assert world.now <= max(budget_s, NOISE_RUNS)
    if not world.race.final(verdict.floor).rounds:
        return
    shipped = world.final_median(verdict.shipped)
    for rival in (arm for arm in world.arms if arm.role is Role.RIVAL):
        allowance = 0.0 if goal is Goal.BALANCED else verdict.floor.wished
        assert shipped * (1 + allowance) >= world.final_median(rival)
        if verdict.shipped is rival:
            assert verdict.outcome in {Outcome.RIVAL, Outcome.RIVAL_EVEN}


def test_a_gain_that_matters_is_found() -> None:
    verdicts = [Simulation(seed, {"n3": (1.0, 1.25)}).run() for seed in range(50)]
    assert sum(verdict.outcome is Outcome.TUNED and "n3" in verdict.shipped.knobs for verdict in verdicts) >= 44


def test_knobs_that_win_are_combined() -> None:
    effects = {"n1": (1.0, 1.3), "n5": (1.0, 1.3)}
    verdicts = [Simulation(seed, effects, budget_s=80).run() for seed in range(50)]
    assert sum({"n1", "n5"} <= verdict.shipped.knobs for verdict in verdicts) >= 40


def test_what_costs_the_other_speed_is_combined_with_what_pays_for_it() -> None:
    effects = {"n0": (1.5, 0.85), "n1": (0.97, 1.2), "n2": (1.0, 1.08), "n3": (1.3, 0.5)}
    worlds = [Simulation(seed, effects, goal=Goal.PREFILL, noise=0.01, drift=0.005, budget_s=80) for seed in range(30)]
    shipped = [world.run().shipped.knobs for world in worlds]
    assert sum("n0" in knobs and bool({"n1", "n2"} & knobs) for knobs in shipped) >= 26, shipped
    assert not any(knobs == {"n0"} or "n3" in knobs for knobs in shipped)


def test_knobs_that_pay_only_together_are_found() -> None:
    """The rivals have more decode than the plan: only all three knobs have as much, and a quarter more prefill."""
    effects = {"n0": (1.25, 0.85), "n1": (0.92, 1.1), "n2": (1.06, 1.04), "r0": (0.93, 1.07), "r1": (0.93, 1.07)}
    together = ((frozenset({"n0", "n1"}), (1.02, 1.07)), (frozenset({"n1", "n2"}), (1.03, 1.03)))
    worlds = [
        Simulation(seed, effects, goal=Goal.PREFILL, noise=0.02, drift=0.01, budget_s=80, together=together)
        for seed in range(60)
    ]
    shipped = [world.run().shipped.knobs for world in worlds]
    assert sum({"n0", "n1", "n2"} <= knobs for knobs in shipped) >= 40, shipped


def test_noise_excuses_a_cost_only_where_nobody_is_fast_without_one() -> None:
    """Half as fast again for a tenth of decode, or a fifth faster for nothing: decode is not to be paid with."""
    effects = {"n0": (1.5, 0.9), "n1": (1.2, 1.05)}
    worlds = [Simulation(seed, effects, goal=Goal.PREFILL, noise=0.03, budget_s=80) for seed in range(60)]
    shipped = [world.run().shipped.knobs for world in worlds]
    assert sum("n1" in knobs for knobs in shipped) >= 52, shipped
    assert sum("n0" in knobs and "n1" not in knobs for knobs in shipped) <= 3, shipped


def test_who_has_more_of_both_than_a_plan_that_paid_already_is_shipped() -> None:
    """The plan has half of the rivals' decode, as its user asked: a neighbour that gives back a part is no loss."""
    effects = {"n1": (1.3, 1.3), "r0": (0.6, 2.0), "r1": (0.6, 2.0)}
    worlds = [Simulation(seed, effects, goal=Goal.PREFILL, noise=0.01, drift=0.005, budget_s=80) for seed in range(20)]
    assert sum("n1" in world.run().shipped.knobs for world in worlds) >= 18


def test_a_faster_rival_is_shipped() -> None:
    for seed in range(50):
        verdict = Simulation(seed, {"n3": (1.0, 1.1), "r1": (1.0, 1.5)}).run()
        assert (verdict.shipped.name, verdict.outcome, verdict.won) == ("r1", Outcome.RIVAL, True)


def test_a_rival_as_fast_but_worse_otherwise_is_not() -> None:
    verdicts = [Simulation(seed, {"r0": (0.6, 1.0), "r1": (0.6, 1.0)}, budget_s=64).run() for seed in range(200)]
    assert sum(verdict.outcome is Outcome.KEPT for verdict in verdicts) >= 0.94 * 200


def test_the_other_speed_is_paid_only_as_far_as_allowed() -> None:
    effects = {"n2": (1.5, 0.7)}
    dear = [Simulation(seed, effects, goal=Goal.PREFILL, rivals=0).run() for seed in range(30)]
    assert all(verdict.outcome is Outcome.KEPT for verdict in dear)
    paid = [Simulation(seed, effects, goal=Goal.PREFILL, rivals=0, may_cost=0.4).run() for seed in range(30)]
    assert sum("n2" in verdict.shipped.knobs for verdict in paid) >= 28


def test_a_balanced_goal_is_the_time_of_a_request() -> None:
    wish = Wish(Goal.BALANCED, prompt_tokens=2048, output_tokens=512)
    assert 1 / wish.speed(Speeds(prefill=1024, decode=51.2)) == pytest.approx(12)
    verdicts = [Simulation(seed, {"n2": (1.5, 0.9)}, goal=Goal.BALANCED).run() for seed in range(30)]
    assert not any(verdict.outcome is Outcome.TUNED for verdict in verdicts)  # 2048 tokens weigh less than 512 decoded


def test_arms_that_fail_leave_and_say_why() -> None:
    world = Simulation(1, {"n1": (1.0, 1.4)}, broken=("n0", "n4", "r0"))
    verdict = world.run()
    assert set(world.race.failed) == {"n0", "n4", "r0"}
    assert verdict.shipped.name == "n1"
    with pytest.raises(Failed):
        Simulation(1, {}, broken=("plan",)).run()


def test_without_time_nothing_is_claimed() -> None:
    world = Simulation(1, {"n1": (1.0, 3.0)}, budget_s=5)
    verdict = world.run()
    assert (verdict.outcome, verdict.shipped.name) == (Outcome.NO_TIME, "plan")
    assert verdict.rounds < LEAST_ROUNDS
    assert world.now <= 6


def test_the_final_is_interleaved_and_its_order_moves() -> None:
    world = Simulation(3, {"n1": (1.0, 1.3)})
    world.run()
    rounds: dict[int, list[str]] = {}
    for run in world.race.runs:
        if run.phase is Phase.FINAL:
            rounds.setdefault(run.round, []).append(run.arm)
    whole = [names for names in rounds.values() if len(names) == len(rounds[0])]
    assert len(whole) >= LEAST_ROUNDS
    assert all(sorted(names) == sorted(whole[0]) for names in whole)
    assert len({names[0] for names in whole}) > 1
