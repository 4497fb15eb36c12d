"""One run of a configuration: started, brought to the depth, measured, stopped; starts differ, so every run has one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from glmplan.benchmark import BenchSettings
from glmplan.engine import Engine, EngineKind
from glmplan.errors import BenchError, EngineError
from glmplan.full_disk import not_written
from glmplan.launchers import load_log, process, rivals
from glmplan.launchers.assemble import assemble
from glmplan.launchers.bench import measure_points
from glmplan.launchers.bench_report import Subject
from glmplan.launchers.client import look
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.port import free_port
from glmplan.launchers.slot_files import FLAG, SlotFiles
from glmplan.measurement import SpeedSample
from glmplan.noun import noun
from glmplan.placement import Placement
from glmplan.plan import Plan

_HOST: Final = "127.0.0.1"
# A sample shorter than this is repeated: clocks and caches need a little.
_ENOUGH_MS: Final = 3000.0
_MOST_SAMPLES: Final = 3
_KEEPS_SLOTS: Final = frozenset({EngineKind.LLAMA_SERVER, EngineKind.IK_LLAMA})


@noun
class Taken:
    """What one run gave: its samples, of what they are, and the engine's log."""

    samples: tuple[SpeedSample, ...]
    subject: Subject
    log: str


class Runner:
    """Runs configurations of one plan's model, context and slots, caches kept in `folder` from run to run."""

    def __init__(
        self, plan: Plan, engine: Engine, settings: BenchSettings, folder: Path, others: Sequence[Engine] = ()
    ) -> None:
        """`others` may serve the plan instead of `engine`; nothing is started yet."""
        self._plan = plan
        self._engines = {each.kind: each for each in (*others, engine)}
        # A plan by another engine runs against llama-server's own choices too, where that is installed.
        self.rivals_by = self._engines.get(EngineKind.LLAMA_SERVER, engine)
        self._settings = settings
        self._folder = folder

    def of_placement(self, placement: Placement) -> Taken:
        """One run of a placement.

        Raises:
            EngineError: it does not start, or dies.
            BenchError: it cannot be measured.
        """
        plan = dataclasses.replace(self._plan, placement=placement)
        engine = self._engines[placement.engine]
        launch = assemble(plan, engine, self._endpoint(), folder=self._folder)
        kind = f"{engine.kind}-{placement.cache_type_k}-{placement.flash_attn}"
        return self._run(launch, plan, engine, kind)

    def of_rival(self, rival: rivals.Rival) -> Taken:
        """One run of what the engine chooses itself; the same errors."""
        engine = self.rivals_by
        return self._run(rivals.launch(rival, self._plan, engine, self._endpoint()), None, engine, "rival")

    @staticmethod
    def _endpoint() -> Endpoint:
        return Endpoint(host=_HOST, port=free_port(_HOST))

    def _run(self, launch: Launch, plan: Plan | None, engine: Engine, kind: str) -> Taken:
        keeps = engine.kind in _KEEPS_SLOTS and FLAG in engine.flags
        if keeps:
            launch = dataclasses.replace(launch, argv=(*launch.argv, FLAG, f"{self._folder}/"))
        try:
            with process.start(launch) as running:
                load_ms = process.wait_until_healthy(running, on_progress=lambda _: None)
                samples = self._samples(launch.endpoint, SlotFiles(self._folder, kind) if keeps else None)
                subject = self._subject(plan, engine, running.log, load_ms)
                return Taken(samples=samples, subject=subject, log=str(running.log))
        except OSError as full:
            why = not_written(full)
            message = f"the engine cannot be started: {why.message}"
            raise EngineError(message, hint=why.hint) from full

    def _samples(self, endpoint: Endpoint, files: SlotFiles | None) -> tuple[SpeedSample, ...]:
        points, _ = measure_points(look(endpoint.url), self._settings, on_sample=lambda _: None, prefixes=files)
        samples = points[0].samples
        if not samples:
            message = "no sample was taken"
            raise BenchError(message)
        return samples

    def _subject(self, plan: Plan | None, engine: Engine, log: Path, load_ms: float) -> Subject:
        with log.open(encoding="utf-8", errors="replace") as lines:
            memory = load_log.parse(lines)
        model = self._plan.model
        return Subject(
            engine=engine.kind.value,
            engine_version=engine.version,
            model=model.name,
            quantization=model.quantization,
            synthetic=model.synthetic,
            machine_fingerprint=self._plan.machine.fingerprint,
            memory=memory,
            load_ms=load_ms,
            plan=plan,
        )


def samples_wanted(prompt_tokens: int, output_tokens: int, prefill: float, decode: float) -> int:
    """Samples in one run, so that it measures for three seconds at least, by forecast speeds."""
    one_ms = 1000 * (prompt_tokens / prefill + output_tokens / decode)
    return max(1, min(_MOST_SAMPLES, round(_ENOUGH_MS / max(one_ms, 1.0))))
