"""How often an engine that dies is started again, and how long to wait before: doubling, and bounded."""

from typing import Final

from glmplan.noun import noun

_GROWTH: Final = 2.0


@noun
class RestartPolicy:
    """At most `most` restarts within `within_s` seconds; the first after `first_delay_s`, each next twice as late."""

    most: int = 5
    within_s: float = 600.0
    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0


NEVER: Final = RestartPolicy(most=0)


class Restarts:
    """The restarts of one launch."""

    def __init__(self, policy: RestartPolicy) -> None:
        """Begin with none."""
        self.policy = policy
        self.total = 0
        self._at_s: list[float] = []

    def next_delay_s(self, now_s: float) -> float | None:
        """Count one more restart at the clock's `now_s`; seconds to wait before it, or None when it is one too many."""
        policy = self.policy
        self._at_s = [at_s for at_s in self._at_s if now_s - at_s < policy.within_s]
        if len(self._at_s) >= policy.most:
            return None
        delay_s = min(policy.first_delay_s * _GROWTH ** len(self._at_s), policy.longest_delay_s)
        self._at_s.append(now_s)
        self.total += 1
        return delay_s
