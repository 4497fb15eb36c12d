"""Arms of a race and what they stand for: placements of a plan, neighbours, and the engine's own choices."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from glmplan.errors import BenchError, EngineError, GlmplanError
from glmplan.planner.neighbours import Neighbour, combined
from glmplan.planner.race import Course, Failed, Race
from glmplan.planner.verdict import Arm, Outcome, Phase, Role, Speeds, Verdict, Wish

if TYPE_CHECKING:
    from glmplan.launchers.rivals import Rival
    from glmplan.launchers.tune_runs import Runner, Taken
    from glmplan.placement import Placement
    from glmplan.planner.memory import MemoryModel

PLAN: Final = "plan"


@dataclass(slots=True)
class Field:
    """Everybody who runs, by name."""

    placements: "dict[str, Placement]"
    turned: dict[str, str]
    neighbours: dict[str, Neighbour]
    rivals: "dict[str, Rival]"
    logs: dict[str, Path]


class Tuning:
    """One race on this machine."""

    def __init__(
        self,
        placement: "Placement",
        found: Sequence[Neighbour],
        rivals: "Sequence[Rival]",
        memory: "MemoryModel",
        runner: "Runner",
        wish: Wish,
        budget_s: float,
    ) -> None:
        """Name the arms; nothing runs yet."""
        self.wish = wish
        self.field = Field({PLAN: placement}, {PLAN: ""}, {}, {rival.name: rival for rival in rivals}, {})
        self.memory = memory
        self._runner = runner
        arms = [Arm(PLAN, Role.PLAN), *(self._arm(each, Role.NEIGHBOUR) for each in found)]
        arms += [Arm(rival.name, Role.RIVAL) for rival in rivals]
        self.race = Race(
            arms, wish, Course(self._measure, self._combine, time.monotonic, budget_s, say=_say)
        )  # fmt: skip

    def add_default(self, name: str, placement: "Placement") -> None:
        """A rival that is a placement: the defaults of an engine without a command line."""
        self.field.placements[name] = placement
        self.race.arms.append(Arm(name, Role.RIVAL))

    def run(self) -> Verdict:
        """The race.

        Raises:
            BenchError: the plan itself cannot be measured.
        """
        try:
            return self.race.run()
        except Failed as failure:
            message = f"the plan cannot be measured: {failure}"
            raise BenchError(message, hint="glmplan run shows whether it starts; glmplan logs tells more") from failure

    def shipped_placement(self, verdict: Verdict) -> "Placement | None":
        """The placement of what is shipped; None where a rival's choices cannot be read from its log."""
        from glmplan.launchers.rivals import pinned

        name = verdict.shipped.name
        if name in self.field.placements:
            return self.field.placements[name]
        return pinned(self.field.placements[PLAN], self.field.logs[name])

    def fits(self, placement: "Placement") -> bool:
        """Whether the ledger holds a placement."""
        return self.memory.estimate(placement).fits

    def _arm(self, neighbour: Neighbour, role: Role) -> Arm:
        name = neighbour.turned
        self.field.placements[name] = neighbour.placement
        self.field.turned[name] = neighbour.turned
        self.field.neighbours[name] = neighbour
        return Arm(name, role, neighbour.knobs)

    def _combine(self, arms: Sequence[Arm]) -> Arm | None:
        parts = [self.field.neighbours[arm.name] for arm in arms]
        both = combined(self.field.placements[PLAN], parts, self.memory)
        known = both is None or both.placement in self.field.placements.values()
        return None if both is None or known else self._arm(both, Role.COMBINATION)

    def _measure(self, arm: Arm, phase: Phase) -> Speeds:
        del phase
        try:
            taken = self._take(arm)
        except (EngineError, BenchError) as error:
            raise Failed(error.message) from error
        self.field.logs[arm.name] = Path(taken.log)
        self._keep(taken)
        return Speeds(
            prefill=median(sample.prefill_tokens_per_s for sample in taken.samples),
            decode=median(sample.decode_tokens_per_s for sample in taken.samples),
        )

    def _take(self, arm: Arm) -> "Taken":
        if arm.name in self.field.placements:
            return self._runner.of_placement(self.field.placements[arm.name])
        return self._runner.of_rival(self.field.rivals[arm.name])

    @staticmethod
    def _keep(taken: "Taken") -> None:
        """Append what is known of a placement to the history; a rival's placement is not known."""
        from glmplan.launchers import history
        from glmplan.launchers.bench_report import measurement
        from glmplan.measurement import Origin

        if taken.subject.plan is not None:
            try:
                history.append(measurement(taken.subject, taken.samples, origin=Origin.TUNE))
            except GlmplanError as unkept:
                _say(f"later plans will not know of this measurement: {unkept.message}")


def kept_for_want_of_pins(verdict: Verdict, plan: Arm) -> Verdict:
    """The plan stays: what the rival chose cannot be said in a plan."""
    return replace(verdict, shipped=plan, outcome=Outcome.KEPT)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
