"""Threads by the kinds of cores there are."""

import pytest

from glmplan.machine import Cpu
from glmplan.planner.threads import threads_of


@pytest.mark.parametrize(
    ("physical", "usable", "fast", "system", "threads"),
    [
        (8, 16, None, "Linux", 8),  # hyperthreads add nothing
        (8, 3, None, "Linux", 3),  # a control group's quota
        (None, 6, None, "Linux", 6),  # cores nobody could count
        (12, 12, 8, "macOS", 8),  # performance cores of an M2 Pro
        (8, 2, 4, "macOS", 2),
        (20, 20, 8, "Linux", 16),  # 8 fast and 12 slow cores: measured
        (14, 20, 6, "Windows", 11),
        (10, 10, 9, "Linux", 9),  # never fewer than the fast ones
        (1, 1, None, "Linux", 1),
    ],
)
def test_threads_by_kind_of_core(
    physical: int | None, usable: int, fast: int | None, system: str, threads: int
) -> None:
    cpu = Cpu(name="any", physical_cores=physical, usable_cores=usable, performance_cores=fast)
    found = threads_of(cpu, system=system)
    assert (found.decode, found.batch) == (threads, threads)
    assert found.why.startswith(f"{threads} thread")
