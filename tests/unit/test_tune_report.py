"""From a race to a tuned plan, with runs that are only numbers: what ships, what it says, and that it is a plan."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from launch_plans import plan_of

from glmplan.benchmark import BenchSettings
from glmplan.commands.tune import pins_of
from glmplan.commands.tune_race import Tuning
from glmplan.commands.tune_report import report_of
from glmplan.engine import Engine, EngineKind
from glmplan.errors import BenchError, EngineError
from glmplan.jsonio import dumps
from glmplan.launchers import history, rivals
from glmplan.launchers.bench_report import Subject
from glmplan.launchers.rivals import Rival, defaults_of, pinned
from glmplan.launchers.tune_runs import Runner, Taken, samples_wanted
from glmplan.measurement import Origin, SpeedSample
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Pins, Plan
from glmplan.plan_schema import violations
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.neighbours import Surroundings, neighbours
from glmplan.planner.spaces import HostSpace, Spaces
from glmplan.planner.verdict import Goal, Wish
from glmplan.profiles.recipes import catalog_profile
from glmplan.render.tune import tune_lines
from glmplan.tuning import TuneReport
from glmplan.units import GIB

MEMORY = MemoryModel(catalog_profile("q4_K_M"), Spaces(gpus=(), host=HostSpace(usable_bytes=64 * GIB)))
ENGINE = Engine(
    kind=EngineKind.LLAMA_SERVER, path="/bin/llama-server", version="b1", flags=frozenset({"--fit", "--load-mode"})
)
LOG = """
system_info: n_threads = 6 (n_threads_batch = 8) / 16 | CPU : AVX512 = 1
llama_context: Flash Attention was auto, set to enabled
"""


class Numbers(Runner):
    """Runs nothing: decode is 20 tokens per second times what the knobs say."""

    def __init__(self, plan: Plan, log: Path, *, flash_off: float, rival: float, broken: bool = False) -> None:
        self.plan, self.log = plan, log
        self.flash_off, self.rival, self.broken = flash_off, rival, broken

    def of_placement(self, placement: Placement) -> Taken:
        if self.broken:
            raise EngineError("the engine ended while loading")
        factor = self.flash_off if placement.flash_attn is FlashAttention.OFF else 1.0
        return self._taken(factor, replace(self.plan, placement=placement))

    def of_rival(self, rival: Rival) -> Taken:
        if rival.name == rivals.FIT:
            raise BenchError("it does not answer")
        return self._taken(self.rival, None)

    def _taken(self, factor: float, plan: Plan | None) -> Taken:
        one = SpeedSample(
            prompt_tokens=64, output_tokens=8, ttft_ms=1.0, prefill_tokens_per_s=300.0,
            decode_tokens_per_s=20.0 * factor, tpot_ms=50 / factor, depth_tokens=4096, server_timed=True,
        )  # fmt: skip
        subject = Subject(
            engine="llama-server", engine_version="b1", model="m", quantization="q", synthetic=True,
            machine_fingerprint="0123456789abcdef", plan=plan,
        )  # fmt: skip
        return Taken(samples=(one,), subject=subject, log=str(self.log))


def plan() -> Plan:
    placement = base_placement(
        MEMORY, engine=EngineKind.LLAMA_SERVER, n_ctx=8192, cache="f16", n_parallel=1, n_threads=4, n_threads_batch=4
    )
    return replace(plan_of(Path("/m.gguf"), EngineKind.LLAMA_SERVER, file_bytes=1), placement=placement)


def raced(tmp_path: Path, *, flash_off: float = 1.0, rival: float = 0.9, broken: bool = False) -> TuneReport:
    log = tmp_path / "engine.log"
    log.write_text(LOG)
    made = plan()
    around = Surroundings(physical_cores=4, usable_cores=4, n_tokens=64)
    found, untried = neighbours(made.placement, MEMORY, around)
    runner = Numbers(made, log, flash_off=flash_off, rival=rival, broken=broken)
    tuning = Tuning(
        made.placement, found, rivals.rivals_of(ENGINE), MEMORY, runner, Wish(Goal.DECODE, 2048, 512), budget_s=60
    )
    settings = BenchSettings(depths=(4096,), prompt_tokens=64, output_tokens=8)
    return report_of(made, ENGINE, settings, 60, tuning, tuning.run(), untried)


def test_what_wins_becomes_a_plan_that_says_why(tmp_path: Path) -> None:
    report = raced(tmp_path, flash_off=1.3)
    assert (report.outcome, report.shipped, report.default_is_best) == ("tuned", "flash attention off", False)
    tuned = report.plan
    assert tuned.placement.flash_attn is FlashAttention.OFF
    assert tuned.speed.depth_tokens == 4096
    assert tuned.speed.decode_tokens_per_s.value == pytest.approx(26)
    assert tuned.speed.decode_tokens_per_s.basis == "measured"
    assert "decode 1.30 times as fast as the plan before" in tuned.reasons[0]
    assert "1.44 times its decode" in tuned.reasons[1]
    assert list(violations(json.loads(dumps(tuned)))) == []
    (rival,) = report.against_rivals
    assert rival.name == rivals.DEFAULTS
    assert rival.decode_ratio == pytest.approx(1.3 / 0.9)
    assert next(arm for arm in report.arms if arm.name == rivals.FIT).failed == "it does not answer"
    kept = history.read("0123456789abcdef")
    assert {record.origin for record in kept} == {Origin.TUNE}
    assert {record.placement.flash_attn for record in kept if record.placement} == {"on", "off"}


def test_a_plan_that_nothing_beats_stays_as_it_is(tmp_path: Path) -> None:
    report = raced(tmp_path)
    assert (report.outcome, report.plan, report.default_is_best) == ("kept", plan(), True)


def test_a_rival_that_wins_is_pinned(tmp_path: Path) -> None:
    report = raced(tmp_path, flash_off=1.1, rival=1.6)
    assert (report.outcome, report.shipped) == ("rival", rivals.DEFAULTS)
    placement = report.plan.placement
    assert (placement.n_threads, placement.n_threads_batch, placement.repack) == (6, 8, True)
    assert (placement.n_ctx, placement.n_parallel) == (8192, 1)
    assert all(each.decode_ratio >= 1 for each in report.against_rivals)
    assert list(violations(json.loads(dumps(report.plan)))) == []


def test_a_table_names_everybody(tmp_path: Path) -> None:
    text = "\n".join(tune_lines(raced(tmp_path, flash_off=1.3)))
    for words in ("flash attention off", "TO PLAN", "not measured: --fit on: it does not answer", "left alone: q8_0"):
        assert words in text


def test_a_plan_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="the plan cannot be measured: the engine ended"):
        raced(tmp_path, broken=True)


def test_a_rival_whose_choices_its_log_does_not_tell_is_not_pinned(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("offloaded 20/48 layers to GPU\nn_threads = 4 (n_threads_batch = 4)\n")
    assert pinned(plan().placement, log) is None
    log.write_text("nothing")
    assert pinned(plan().placement, log) is None
    log.write_text("offloaded 48/48 layers to GPU\nn_threads = 4 (n_threads_batch = 4)\n")
    found = pinned(plan().placement, log)
    assert found is not None
    assert found.n_gpu_layers == 48


def test_defaults_of_engines_without_a_command_line() -> None:
    python = replace(plan().placement, engine=EngineKind.LLAMA_CPP_PYTHON)
    found = defaults_of(python)
    assert (found.n_batch, found.n_outputs, found.flash_attn) == (512, 512, FlashAttention.OFF)
    assert rivals.rivals_of(replace(ENGINE, kind=EngineKind.XLLAMACPP)) == ()


def test_a_plan_by_ik_llama_runs_against_llama_servers_own_choices(tmp_path: Path) -> None:
    by_ik = replace(plan().placement, engine=EngineKind.IK_LLAMA, n_gpu_layers=0, repack=True, use_mmap=False)
    itself = replace(ENGINE, kind=EngineKind.IK_LLAMA)
    settings = BenchSettings(depths=(0,), prompt_tokens=16, output_tokens=4)
    alone, beside = (Runner(plan(), itself, settings, tmp_path, others) for others in ((), (ENGINE,)))
    assert (alone.rivals_by.kind, beside.rivals_by.kind) == (EngineKind.IK_LLAMA, EngineKind.LLAMA_SERVER)
    log = tmp_path / "log"
    log.write_text("n_threads = 4 (n_threads_batch = 4)\n")
    found = pinned(by_ik, log)
    assert found is not None
    assert (found.engine, found.repack, found.use_mmap) == (EngineKind.LLAMA_SERVER, True, True)
    assert defaults_of(by_ik).repack is False


def test_short_samples_are_repeated() -> None:
    assert samples_wanted(512, 32, 2000, 100) == 3
    assert samples_wanted(512, 32, 50, 10) == 1


def test_a_cache_type_that_the_plan_was_asked_for_stays() -> None:
    asked = replace(plan(), pins=Pins(cache_type="f16"))
    assert pins_of(asked, frozenset({"numa"})) == {"numa", "cache_type"}
    assert pins_of(plan(), frozenset()) == frozenset()
