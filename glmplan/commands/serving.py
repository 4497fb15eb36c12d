"""Serving a plan: its engine is started, watched, and started again when it dies."""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from glmplan.commands.fetching import fetch_command, with_local_file
from glmplan.engine import EngineKind
from glmplan.errors import EngineError, EngineExited, GlmplanError, JsonValue, UnsupportedModel
from glmplan.full_disk import not_written
from glmplan.jsonio import to_jsonable
from glmplan.launchers import process as processes
from glmplan.launchers import records
from glmplan.launchers.process import EngineProcess, LoadProgress
from glmplan.launchers.restarts import NEVER, RestartPolicy, Restarts
from glmplan.noun import noun
from glmplan.step_down import StepDown

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.launchers.launch import Endpoint
    from glmplan.plan import Plan

OnProgress = Callable[[LoadProgress], None]
MOST_STEPS: Final = 3
# How long an engine that broke off may take to be gone: it may still be writing its last words, or a core file.
_DYING_S: Final = 3.0


@noun
class Survival:
    """What is done when an engine dies; `step_downs` is how often less is tried when memory runs out."""

    restarts: RestartPolicy = RestartPolicy()
    step_downs: int = MOST_STEPS


ONCE: Final = Survival(restarts=NEVER, step_downs=0)


class Service:
    """One plan being served."""

    def __init__(
        self,
        plan: "Plan",
        engine: "Engine",
        endpoint: "Endpoint",
        survival: Survival,
        *,
        detached: bool,
        timeout_s: float | None,
        on_progress: OnProgress,
    ) -> None:
        """Keep what every start needs; nothing is started yet."""
        self.plan = plan
        self.engine = engine
        self.endpoint = endpoint
        self.survival = survival
        self.detached = detached
        self.load_ms = 0.0
        self.step_downs: tuple[StepDown, ...] = ()
        self._timeout_s = timeout_s
        self._on_progress = on_progress
        self._restarts = Restarts(survival.restarts)
        self._process: EngineProcess | None = None
        self._record: records.RunRecord | None = None
        self._in_background = False
        self._reason: str | None = None
        self._gave_up = False

    @property
    def process(self) -> EngineProcess:
        """The engine that serves now, or the last one that did."""
        if self._process is None:
            message = "the service was not started"
            raise RuntimeError(message)
        return self._process

    def start(self) -> None:
        """Start the engine and wait until it answers; with a smaller plan when memory runs out.

        Raises:
            EngineError: it cannot be started, dies, or does not answer in time.
            OSError: its log or its configuration cannot be written.
        """
        while True:
            try:
                self._launch()
            except EngineExited as error:
                self._step_down(error, serving=False)
            else:
                return

    def survive(self, error: GlmplanError) -> None:
        """Go on after an error of an engine that was just being looked at, if it died or failed for want of memory.

        Raises:
            GlmplanError: it lives, so that the error is its answer; it died of something else; or nothing is left to
                give up.
        """
        if not self.process.has_ended(within_s=_DYING_S) and not self.process.end_out_of_memory():
            raise error
        self._step_down(self.process.failed(processes.WHILE_SERVING), serving=True)
        self.start()

    def _step_down(self, error: EngineError, *, serving: bool) -> None:
        """Take a smaller plan, if memory is what was missing and there is one.

        Raises:
            EngineError: `error`, with what could not be given up.
        """
        from glmplan.commands.shortage import is_out_of_memory, smaller_plan
        from glmplan.render.run import step_down_text

        has_less = self.engine.kind is not EngineKind.MLX_LM  # its knobs free no memory
        if not is_out_of_memory(error) or not self.survival.step_downs or not has_less:
            raise error
        taken = len(self.step_downs)
        facts: dict[str, JsonValue] = {**error.facts, "step_downs": to_jsonable(self.step_downs)}
        if taken >= self.survival.step_downs:
            message = f"{error.message}; {taken} smaller plans did not help"
            raise EngineExited(message, hint=error.hint, facts=facts)
        try:
            self.plan, step = smaller_plan(self.plan, self.engine, error, steps_before=taken, serving=serving)
        except GlmplanError as refusal:
            message = f"{error.message}; no smaller plan was tried: {refusal.message}"
            # Of a model nobody can plan for, the planner's advice leads nowhere: the engine's own stands.
            hint = error.hint if isinstance(refusal, UnsupportedModel) else refusal.hint
            raise EngineExited(message, hint=hint, facts={**facts, **refusal.facts}) from error
        self.step_downs = (*self.step_downs, step)
        self._say(step_down_text(step, most=self.survival.step_downs))

    def _launch(self) -> None:
        from glmplan.commands.other_engine import warn_of_losses
        from glmplan.launchers.assemble import assemble

        launch = assemble(self.plan, self.engine, self.endpoint, folder=records.folder())
        if self._process is None:
            warn_of_losses(launch)
        self._process = processes.start(launch, log=self._process.log if self._process else None)
        try:
            self._remember()
            self.load_ms = processes.wait_until_healthy(
                self._process, on_progress=self._on_progress, deadline_s=self._timeout_s
            )
        except BaseException:
            self._process.stop()
            raise

    def went_to_background(self) -> None:
        """Standard error is the log from now on: say everything there, once."""
        self._in_background = True

    def stay(self) -> NoReturn:
        """Watch the engine and start it again when it dies, as often as agreed.

        Raises:
            EngineError: it died once more than that.
        """
        self._on_progress = _say_nothing
        while True:
            self.process.wait()
            self._start_again(self.process.failed(processes.WHILE_SERVING), serving=True)

    def end(self) -> None:
        """Stop the engine; its record goes with it, unless it has to tell why it was given up."""
        if self._process is not None:
            self._process.stop()
        if self._record is not None and self._gave_up:
            with contextlib.suppress(OSError):
                records.write(dataclasses.replace(self._record, gave_up=True, last_reason=self._reason))
        elif self._record is not None:
            records.forget(self._record)

    def _start_again(self, error: EngineError, *, serving: bool) -> None:
        """Start again: at once with less when memory ran out, as long as there is less; otherwise after a while."""
        while True:
            try:
                self._step_down(error, serving=serving)
                self._reason = error.message
            except EngineError as reason:
                self._wait_before_restart(reason)
            serving = False
            try:
                self.start()
            except EngineError as another:
                error = another
            except OSError as full:
                why = not_written(full)
                error = EngineError(f"the engine cannot be started again: {why.message}", hint=why.hint)
            else:
                self._say(f"the engine answers again, after {self.load_ms / 1000:.1f} s of loading")
                return

    def _wait_before_restart(self, error: EngineError) -> None:
        """Say why and wait a little, or give up."""
        self._reason = error.message
        policy = self._restarts.policy
        delay_s = self._restarts.next_delay_s(time.monotonic())
        if delay_s is None:
            raise self._given_up(error)
        bound = f"restart {self._restarts.total}, at most {policy.most} in {policy.within_s / 60:g} minutes"
        self._say(f"{error.message}; starting it again in {delay_s:g} s ({bound})")
        if self._record is not None:
            self._record = self._with_history(self._record)
            with contextlib.suppress(OSError):
                records.write(self._record)
        time.sleep(delay_s)

    def _given_up(self, error: EngineError) -> EngineError:
        policy = self._restarts.policy
        if not policy.most:
            return error
        self._gave_up = True
        within = f"within {policy.within_s / 60:g} minutes"
        message = f"{error.message}; started again {policy.most} times {within}: given up"
        self._reason = message
        if self._in_background:
            self._say(message)
        return EngineExited(message, hint=error.hint, facts={**error.facts, "restarts": self._restarts.total})

    def _remember(self) -> None:
        """Write the record and the plan copy of a started engine."""
        from glmplan.jsonio import dumps
        from glmplan.launchers.identity import own_identity
        from glmplan.paths import write_atomic

        launch, endpoint, plan = self.process.launch, self.endpoint, self.plan
        plan_file = records.plan_copy(endpoint.port)
        write_atomic(plan_file, dumps(plan), mode=0o600)
        record = records.RunRecord(
            endpoint=endpoint,
            engine=self.engine.kind.value,
            engine_version=self.engine.version,
            process=self.process.identity,
            supervisor=own_identity(),
            detached=self.detached,
            started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            model=endpoint.alias,
            quantization=plan.model.quantization,
            synthetic=plan.model.synthetic,
            n_ctx=plan.placement.n_ctx,
            log=str(self.process.log),
            health_path=launch.health_path,
            timings=launch.timings,
            plan_file=str(plan_file),
            joins=launch.joins,
        )
        self._record = self._with_history(record)
        records.write(self._record)

    def _with_history(self, record: records.RunRecord) -> records.RunRecord:
        return dataclasses.replace(
            record,
            restarts=self._restarts.total,
            step_downs=len(self.step_downs),
            last_reason=self._reason,
        )

    def _say(self, text: str) -> None:
        """Tell the log, and whoever looks at the terminal."""
        from glmplan.launchers import logs

        logs.note(self.process.log, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}")
        if not self._in_background:
            sys.stderr.write(text + "\n")


@contextlib.contextmanager
def serving(
    plan: "Plan",
    engine: "Engine",
    endpoint: "Endpoint",
    survival: Survival,
    *,
    detached: bool = False,
    timeout_s: float | None = None,
    on_progress: OnProgress,
) -> Generator[Service, None, None]:
    """A healthy engine serving `plan` at `endpoint`; it is stopped when the block ends, in whatever way.

    Raises:
        EngineError: it cannot be started, dies, or does not answer in time.
        InputError: the model file is not here or not whole.
    """
    from glmplan.launchers import model_file

    plan = with_local_file(plan)
    with _stopped_by_signals(), records.key_while(endpoint), records.hold_port(endpoint.host, endpoint.port):
        model_file.require_model(plan.model, how_to_get=fetch_command(plan.model))
        service = Service(
            plan, engine, endpoint, survival, detached=detached, timeout_s=timeout_s, on_progress=on_progress
        )
        try:
            service.start()
            yield service
        finally:
            service.end()


def _say_nothing(_: LoadProgress) -> None:
    """Nobody looks at the progress of a restart."""


@contextlib.contextmanager
def _stopped_by_signals() -> Generator[None, None, None]:
    """Turn SIGTERM and SIGHUP into an orderly end with the usual exit status, 128 and the signal's number."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
