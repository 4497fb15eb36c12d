"""How many threads compute, by what kinds of cores there are: a rule with its evidence, not a measurement; pure.

Threads wait for each other at every operation, so a second thread on one core and a slow core beside fast ones cost
more than they add. `glmplan tune` measures what this rule guesses.
"""

from dataclasses import dataclass
from typing import Final

from glmplan.machine import Cpu

# Of 8 fast and 12 slow cores (Core Ultra 7 265K) 16 threads were fastest with experts in main memory: 8 were up to
# 23 % slower, all 20 lost with five of six models by 6 to 11 % (llama.cpp; public file 65807332617).
_SHARE_OF_UNLIKE_CORES: Final = 0.8


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of decode and of prompt batches, and the rule that says so."""

    decode: int
    batch: int
    why: str


def threads_of(cpu: Cpu, *, system: str) -> Threads:
    """Threads for the cores a process may use.

    Physical cores, because two threads of one core share what they wait for (llama.cpp
    docs/development/token_generation_performance_tips.md; its default, common/common.cpp). On Apple chips the
    performance cores, llama.cpp's default too: an M1 with 8 threads decoded at half the speed of 4 (llama.cpp issues
    18 and 34). Where fast and slow cores mix otherwise, four fifths of all, never fewer than the fast ones.

    Args:
        cpu: cores that exist and cores that may be used.
        system: name of the operating system.
    """
    physical = cpu.physical_cores or cpu.usable_cores
    usable = max(1, min(cpu.usable_cores, physical))
    fast = cpu.performance_cores
    if fast is None or fast >= physical:
        return Threads(usable, usable, f"{usable} threads: one per physical core, none for a second thread of it")
    if system == "macOS":
        count = max(1, min(usable, fast))
        return Threads(count, count, f"{count} threads: the performance cores; slow cores would hold them up")
    count = max(1, min(usable, max(fast, round(_SHARE_OF_UNLIKE_CORES * physical))))
    return Threads(count, count, f"{count} threads of {physical} unlike cores: all of them would wait for the slowest")
