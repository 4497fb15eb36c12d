"""The schedule of a rehearsal over real engines: turns, budget, memory by turns, and an engine that dies."""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest
from launch_plans import plan_of
from tiny import N_VOCAB

from glmplan.commands.launching import endpoint_for, engine_for, launched, target_of
from glmplan.engine import EngineKind
from glmplan.errors import EngineExited
from glmplan.launchers.rehearse import Rehearser, RehearseSettings, ladder
from glmplan.launchers.rehearse_pool import EnginePool, Seat
from glmplan.rehearsal import Cut, LayerKind, Phase, Timing
from glmplan.units import MIB

NAMES = ("lead", "base", "more-host")
KIND = LayerKind(device="host")
CUTS = tuple(
    Cut(name=name, layers=tuple(range(n)), kinds=(KIND,) * n, n_lead=1) for n, name in enumerate(NAMES, start=1)
)
OpenCut = Callable[[Cut], AbstractContextManager[Seat]]


@pytest.fixture
def open_cut(tiny_gguf: Path) -> OpenCut:
    """Every cut is the same tiny model here: what counts is who is asked when."""
    plan = plan_of(tiny_gguf, EngineKind.XLLAMACPP)
    engine = engine_for(plan)

    @contextmanager
    def serve(cut: Cut) -> Generator[Seat, None, None]:
        endpoint = endpoint_for("127.0.0.1", 0, None)
        with launched(plan, engine, endpoint, on_progress=lambda _: None) as (process, load_ms):
            yield Seat(cut=cut, target=target_of(endpoint), process=process, load_ms=load_ms)

    return serve


def pool_of(open_cut: OpenCut, room: int = 1000) -> EnginePool:
    return EnginePool(open_cut, dict.fromkeys(NAMES, 100), room)


def settings(seconds: float = 60.0, hard: float = 600.0) -> RehearseSettings:
    depths = {"lead": (256, 512, 1024), "base": (256,), "more-host": (256,)}
    return RehearseSettings(depths=depths, prompt_tokens=128, n_vocab=N_VOCAB, seconds=seconds, hard_seconds=hard)


@dataclass(frozen=True)
class Run:
    """A finished schedule."""

    timings: tuple[Timing, ...]
    rounds: int
    skipped_depths: dict[str, int]


def run(
    pool: EnginePool,
    wanted: RehearseSettings,
    on_timing: Callable[[Timing], None] = lambda _: None,
    look_s: float = 0.0,
) -> Run:
    """Run the schedule; every look at the clock finds `look_s` seconds more, however busy this machine is."""
    looks = count()
    rehearser = Rehearser(pool, CUTS, wanted, on_timing=on_timing, clock=lambda: next(looks) * look_s)
    timings = rehearser.run()
    return Run(timings=timings, rounds=rehearser.rounds, skipped_depths=rehearser.skipped_depths)


def test_cuts_take_turns_in_every_phase_and_reach_their_depths(open_cut: OpenCut) -> None:
    with pool_of(open_cut) as pool:
        found = run(pool, settings())
        pids = pool.pids
        assert len(pids) == len(NAMES)
        assert pool.all_together
    assert not any(psutil.pid_exists(pid) for pid in pids)
    prompts = [t for t in found.timings if t.phase is Phase.PREFILL and t.n_tokens == 128 and t.depth_tokens == 64]
    assert [t.cut for t in prompts[:6]] == [*NAMES, *NAMES]
    for cut in CUTS:
        decode = [t for t in found.timings if t.cut == cut.name and t.phase is Phase.DECODE]
        assert len(decode) > 6
        assert all(t.ms_per_token > 0 and t.n_tokens >= 8 for t in decode)
    deepest = max(t.depth_tokens for t in found.timings if t.cut == "lead")
    assert 1024 < deepest < 1024 + 64
    assert found.rounds == 6
    assert not found.skipped_depths
    assert pool.peak_bytes > 10 * MIB


def test_engines_that_do_not_fit_together_take_turns(open_cut: OpenCut) -> None:
    together: list[int] = []
    with pool_of(open_cut, room=150) as pool:
        found = run(pool, settings(), on_timing=lambda _: together.append(len(pool.pids)), look_s=0.5)
    assert set(together) == {1}
    assert {t.cut for t in found.timings} == set(NAMES)
    assert max(t.depth_tokens for t in found.timings if t.cut == "lead") > 1024
    assert set(pool.load_ms) == set(NAMES)


def test_no_request_begins_after_the_budget(open_cut: OpenCut) -> None:
    with pool_of(open_cut) as pool:
        found = run(pool, settings(seconds=20.0), look_s=1.0)
    assert 0 < len(found.timings) < 20
    assert found.rounds < 6


def test_what_still_runs_at_the_hard_end_is_cut_off(open_cut: OpenCut) -> None:
    with pool_of(open_cut) as pool:
        for cut in CUTS:
            pool.seat(cut)
        found = run(pool, settings(hard=0.05))
        assert pool.was_cut_off
    assert found.rounds < 6


def test_an_engine_that_dies_is_named_with_its_signal(open_cut: OpenCut) -> None:
    with pool_of(open_cut) as pool:

        def kill(_: Timing) -> None:
            os.kill(pool.pids[0], signal.SIGKILL)

        with pytest.raises(EngineExited) as caught:
            run(pool, settings(), on_timing=kill)
        pids = pool.pids
    assert "during the rehearsal" in caught.value.message
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize(
    ("first", "deepest", "depths"),
    [(512, 8192, [1024, 2048, 4096, 8192]), (512, 5000, [1024, 2048, 4096, 5000]), (512, 600, [600]), (512, 512, [])],
)
def test_depths_double_up_to_the_deepest(first: int, deepest: int, depths: list[int]) -> None:
    assert list(ladder(first, deepest)) == depths
