"""Proof after health: what an engine that has just begun to answer is asked, and what a person is told of it."""

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from glmplan.commands.launching import target_of
from glmplan.engine import EngineKind
from glmplan.errors import BenchError, EngineError
from glmplan.noun import noun
from glmplan.proof_settings import ProofKind, ProofSettings

if TYPE_CHECKING:
    from pathlib import Path

    from glmplan.commands.serving import Service
    from glmplan.launchers.client import Target
    from glmplan.measurement import MemoryReport
    from glmplan.plan import Plan
    from glmplan.proof import ProofDepth, RoundTrip, SpeedLine
    from glmplan.running import LaunchReport

_NO_BUFFERS: Final = {
    EngineKind.MLX_LM: "mlx-lm tells no buffer sizes: the resident set is what the system counts",
    EngineKind.OLLAMA: "Ollama tells sums, no buffer sizes",
}
_QUESTION: Final = "Mountains are"
_ANSWER_TOKENS: Final = 24
# How long an engine that broke off is watched for its end before what it did is called an answer.
_DYING_S: Final = 3.0


def proven(service: "Service", settings: ProofSettings) -> "LaunchReport":
    """The proof of an engine that serves; of a smaller plan's, where memory ran out under the first one.

    Raises:
        EngineError: the engine refuses, died of something else, or has nothing left to give up.
        BenchError: the same, seen by the measurement.
    """
    while True:
        try:
            return prove(service, settings)
        except (EngineError, BenchError) as error:
            service.survive(error)


def prove(service: "Service", settings: ProofSettings) -> "LaunchReport":
    """Answer, measure, converse, fill; then what the engine says of its memory, beside the plan."""
    from glmplan.launchers import identity
    from glmplan.planner.ledger_lines import ledger_lines
    from glmplan.proof import Proof
    from glmplan.render.proof import warnings_of
    from glmplan.running import LaunchReport

    running, endpoint, plan = service.process, service.endpoint, service.plan
    seen = _nothing_asked(settings) if settings.kind is ProofKind.NONE else _ask(service, settings)
    memory, misplaced = _placed(endpoint.url, endpoint.alias, memory_of(running.log, plan), plan)
    resident_bytes = None if running.launch.joins else identity.resident_bytes(running.pid)
    ledger = ledger_lines(plan, memory, resident_bytes)
    return LaunchReport(
        url=endpoint.url,
        model=endpoint.alias,
        api_key_file=endpoint.api_key_file,
        engine=service.engine.kind.value,
        engine_version=service.engine.version,
        pid=running.pid,
        detached=service.detached,
        synthetic=plan.model.synthetic,
        log=str(running.log),
        load_ms=service.load_ms,
        memory=memory,
        resident_bytes=resident_bytes,
        answer=seen.answer,
        speed=seen.speeds[0].measured if seen.speeds else None,
        n_ctx=plan.placement.n_ctx,
        step_downs=service.step_downs,
        proof=Proof(
            asked=settings.kind,
            depth=seen.depth,
            speeds=seen.speeds,
            ledger=ledger,
            tool_call=seen.tool_call,
            thinking=seen.thinking,
            warnings=(*misplaced, *warnings_of(ledger, plan, (seen.tool_call, seen.thinking))),
        ),
    )


def _placed(url: str, model: str, memory: "MemoryReport", plan: "Plan") -> "tuple[MemoryReport, tuple[str, ...]]":
    """`memory` with what an engine that places by itself says it holds, and what of that is not as planned.

    Raises:
        EngineError: it holds the model no more, or does not answer.
    """
    if plan.placement.engine is not EngineKind.OLLAMA:
        return memory, ()
    from glmplan.launchers.ollama_api import OllamaDaemon
    from glmplan.launchers.ollama_residence import differences

    loaded = OllamaDaemon(url).loaded(model)
    if loaded is None:
        message = f"Ollama at {url} has unloaded {model} already"
        raise EngineError(message, hint="another model took its place: ollama ps")
    memory = dataclasses.replace(memory, total_bytes=loaded.total_bytes, gpu_bytes=loaded.gpu_bytes)
    return memory, differences(plan, loaded)


def memory_of(log: "Path", plan: "Plan") -> "MemoryReport":
    """The buffers in an engine's log; where its kind prints none, that."""
    from glmplan.launchers import load_log

    with log.open(encoding="utf-8", errors="replace") as lines:
        memory = load_log.parse(lines)
    kind = plan.placement.engine
    if memory.buffers or kind.answers_as_llama_server:
        return memory
    return dataclasses.replace(memory, why=_NO_BUFFERS[kind])


@noun
class _Seen:
    """What came of asking the engine."""

    answer: "str | None"
    depth: "ProofDepth | None"
    speeds: "tuple[SpeedLine, ...]"
    tool_call: "RoundTrip"
    thinking: "RoundTrip"


def _nothing_asked(settings: ProofSettings) -> _Seen:
    from glmplan.proof import RoundTrip

    skipped = RoundTrip(passed=None, why=f"nothing was asked of the engine (--proof {settings.kind})")
    return _Seen(answer=None, depth=None, speeds=(), tool_call=skipped, thinking=skipped)


def _ask(service: "Service", settings: ProofSettings) -> _Seen:
    from glmplan.commands.proof_speeds import filled, measured_short
    from glmplan.launchers import round_trips

    target = target_of(service.endpoint, service.plan)
    answer = _first_answer(target, speak=settings.speak)
    short = measured_short(target, speak=settings.speak)
    tool_call = _round_trip(service, target, "a tool call", round_trips.tool_call)
    thinking = _round_trip(service, target, "thinking on and off", round_trips.thinking)
    depth, speeds = filled(service.plan, target, short, kind=settings.kind, limit_s=settings.limit_s)
    return _Seen(answer=answer, depth=depth, speeds=speeds, tool_call=tool_call, thinking=thinking)


def _first_answer(target: "Target", *, speak: bool) -> str:
    from glmplan.launchers.stream import stream_completion
    from glmplan.render.run import printable

    def show(text: str) -> None:
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    if speak:
        sys.stdout.write(f"answer     {_QUESTION}")
    done = stream_completion(target, _QUESTION, n_predict=_ANSWER_TOKENS, on_text=show if speak else None)
    if speak:
        sys.stdout.write("\n")
    return done.text


def _round_trip(
    service: "Service", target: "Target", name: str, converse: "Callable[[Target], RoundTrip]"
) -> "RoundTrip":
    """A conversation, or why there is none; what a living engine answers is its result, however wrong.

    Raises:
        EngineError: the engine died of it.
    """
    from glmplan.proof import RoundTrip

    if service.plan.model.synthetic:
        return RoundTrip(passed=None, why="the weights are synthetic: they call no tool and have no thoughts")
    if not target.timings:
        why = f"the server of {service.engine.kind} knows no chat_template_kwargs and no reasoning_content"
        return RoundTrip(passed=None, why=why)
    sys.stderr.write(f"asking for {name}\n")
    try:
        return converse(target)
    except EngineError as error:
        if service.process.has_ended(within_s=_DYING_S):
            raise
        return RoundTrip(passed=False, why=error.message)
