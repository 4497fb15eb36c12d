"""`glmplan bench`: measure an engine that runs, or launch a plan and measure that; show and compare what was kept."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from glmplan.boundary import end_answer
from glmplan.commands.launching import endpoint_for, engine_for, for_this_machine, launched, load_plan, target_of
from glmplan.commands.numbers import finite
from glmplan.engine import EngineKind
from glmplan.errors import GlmplanError, InputError
from glmplan.noun import noun
from glmplan.units import parse_seconds, parse_tokens

if TYPE_CHECKING:
    from glmplan.benchmark import BenchReport, BenchSettings
    from glmplan.launchers.bench_report import Subject
    from glmplan.launchers.client import ApiKey, Target
    from glmplan.launchers.records import RunRecord
    from glmplan.plan import Plan
    from glmplan.render.progress import ProgressLine

_UNKNOWN: Final = "unknown"
_AUTO: Final = "auto"
_PLANNED: Final = "planned"
_LADDER: Final = (0, 4096, 16384, 32768)
_ALL_STREAMS_UP_TO: Final = 4


@noun
class Asked:
    """What a person asks for; None leaves it to the plan and the server."""

    depths: tuple[int | str, ...] | None
    streams: tuple[int, ...] | None
    prompt_tokens: int
    output_tokens: int
    repetitions: int
    max_time_s: float
    kwh_price: float | None
    watts: float | None


def bench(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="[PLAN|URL]", help="A plan to launch, or a server's address; none: the running engine."),
    ] = None,
    depth: Annotated[
        str,
        typer.Option(
            metavar="N,N,...",
            help="Tokens already in the context: 0,4k,planned; auto: 0,4k,16k,32k,planned as they fit.",
        ),
    ] = _AUTO,
    streams: Annotated[
        str, typer.Option(metavar="N,N,...", help="Requests at once: 1,2,4; auto: 1 up to the plan's slots.")
    ] = _AUTO,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt to time after the depth.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode.")] = 64,
    repetitions: Annotated[int, typer.Option(min=1, help="Samples at each depth.")] = 3,
    max_time: Annotated[
        str, typer.Option(metavar="DURATION", help="Leave out what would take longer, for example 90s, 15m, 1h.")
    ] = "10m",
    kwh_price: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            min=0,
            help="What a kilowatt-hour costs, in US dollars: electricity beside the hosted price.",
        ),
    ] = None,
    watts: Annotated[
        float | None,
        typer.Option(callback=finite, min=0, help="What the machine takes while it works, where no meter counts it."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the server's API key (or GLMPLAN_API_KEY).")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Compare two records: numbers, times, files, or `before last`; measures nothing."
        ),
    ] = None,
    list_records: Annotated[bool, typer.Option("--list", help="Show the stored measurements.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/bench/1).")] = False,
) -> None:
    """Measure prefill and decode speed and the time to the first token, through the server that serves."""
    if list_records or compare is not None:
        from glmplan.commands.bench_records import show_comparison, show_list

        if compare is None:
            show_list(as_json=as_json)
        else:
            show_comparison(*compare, as_json=as_json)
        return
    asked = Asked(
        depths=_depths(depth),
        streams=_streams(streams),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        repetitions=repetitions,
        max_time_s=parse_seconds(max_time),
        kwh_price=kwh_price,
        watts=watts,
    )
    plan, report = _report(subject, api_key_file, asked)
    report, unkept = _kept(report)
    _show(report, plan, as_json=as_json)
    if unkept is not None:
        end_answer()
        raise unkept


def _report(subject: str | None, api_key_file: Path | None, asked: Asked) -> "tuple[Plan | None, BenchReport]":
    if subject is not None and subject.startswith(("http://", "https://")):
        return None, _bench_url(subject, api_key_file, asked)
    if subject is None and (record := _running()) is not None:
        plan = _plan_of(record)
        return plan, _bench_record(record, plan, asked)
    plan = load_plan(subject)
    if subject is not None:
        plan = for_this_machine(plan)
    if plan.placement.engine is EngineKind.MLX_LM:
        from glmplan.commands.other_engine import with_mlx_weights

        plan = with_mlx_weights(plan, None)
    return plan, _bench_plan(plan, asked)


def _depths(text: str) -> tuple[int | str, ...] | None:
    if text == _AUTO:
        return None
    return tuple(part.strip() if part.strip() == _PLANNED else parse_tokens(part) for part in text.split(","))


def _streams(text: str) -> tuple[int, ...] | None:
    if text == _AUTO:
        return None
    numbers = tuple(parse_tokens(part) for part in text.split(","))
    if min(numbers) < 1:
        message = f"--streams {text}: a number below 1"
        raise InputError(message, hint="for example --streams 1,2,4")
    return numbers


def _settings(asked: Asked, target: "Target", plan: "Plan | None") -> "BenchSettings":
    """What to measure on this server: named depths must fit, the rest is left out where it does not."""
    from glmplan.benchmark import BenchSettings

    planned = None if plan is None else plan.speed.depth_tokens
    depths = asked.depths or (*_LADDER, *([] if planned is None else [planned]))
    if planned is None and _PLANNED in depths:
        message = "--depth planned: this server has no plan"
        raise InputError(message, hint="name the depth in tokens")
    tokens = sorted({(planned or 0) if isinstance(one, str) else one for one in depths})
    room = target.n_ctx - asked.prompt_tokens - asked.output_tokens if target.n_ctx else None
    if asked.depths is None and plan is not None and room is not None and 0 < room < (planned or 0):
        tokens.append(room)  # a plan for its whole context: as deep as the request leaves room for
    return BenchSettings(
        depths=tuple(sorted(set(tokens))),
        streams=asked.streams or _numbers_up_to(target.n_slots or 1),
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        repetitions=asked.repetitions,
        max_time_s=asked.max_time_s,
        skip_what_does_not_fit=asked.depths is None and asked.streams is None,
    )


def _numbers_up_to(n_slots: int) -> tuple[int, ...]:
    """1, 2, 3, 4, then doubled, and `n_slots`."""
    counts = {*range(1, min(n_slots, _ALL_STREAMS_UP_TO) + 1), n_slots}
    doubled = _ALL_STREAMS_UP_TO * 2
    while doubled < n_slots:
        counts.add(doubled)
        doubled *= 2
    return tuple(sorted(counts))


def _running() -> "RunRecord | None":
    """The one running engine; None when there is none."""
    from glmplan.launchers import records

    running = records.running()
    return records.choose(running, None) if running else None


def _bench_url(url: str, api_key_file: Path | None, asked: Asked) -> "BenchReport":
    """Measure a server by its address; ours if its port is one of ours."""
    from glmplan.launchers import records
    from glmplan.launchers.client import look
    from glmplan.launchers.launch import LOOPBACK

    address = urlsplit(url)
    ours = next((record for record in records.running() if record.endpoint.port == address.port), None)
    if ours is not None and address.hostname in LOOPBACK:
        return _bench_record(ours, _plan_of(ours), asked)
    from glmplan.launchers.bench_report import Subject

    target = look(url, api_key=_given_key(api_key_file))
    subject = Subject(
        engine="llama-server" if target.timings else _UNKNOWN,
        engine_version=target.build,
        model=target.model,
        quantization=_UNKNOWN,
        synthetic=False,
        machine_fingerprint=_UNKNOWN,
    )
    return _measured(target, asked, subject)


def _given_key(path: Path | None) -> "ApiKey | None":
    from glmplan.launchers import api_keys
    from glmplan.launchers.client import ApiKey
    from glmplan.launchers.launch import first_key

    key = os.environ.get("GLMPLAN_API_KEY")
    if path is not None:
        api_keys.require_key(path)
        key = first_key(path)
    return ApiKey(key) if key else None


def _bench_record(record: "RunRecord", plan: "Plan", asked: Asked) -> "BenchReport":
    """Measure an engine that glmplan has started."""
    subject = _subject(
        plan,
        engine=record.engine,
        version=record.engine_version,
        log=Path(record.log),
        pid=None if record.joins else record.process.pid,
        load_ms=None,
    )
    return _measured(target_of(record.endpoint, plan), asked, subject)


def _bench_plan(plan: "Plan", asked: Asked) -> "BenchReport":
    """Launch a plan on a free port, measure it, stop it."""
    from glmplan.launchers.bench import require_room
    from glmplan.launchers.client import Target
    from glmplan.render.progress import ProgressLine, loading_text

    placement = plan.placement
    planned = Target(url="", model="", timings=True, n_ctx=placement.n_ctx, n_slots=placement.n_parallel)
    require_room(planned, _settings(asked, planned, plan))
    engine = engine_for(plan)
    endpoint = endpoint_for("127.0.0.1", 0, None, engine)
    sys.stderr.write(f"starting {engine.kind} {engine.version or ''} on {endpoint.url}\n")
    with ProgressLine() as line, launched(
        plan, engine, endpoint,
        on_progress=lambda at: line.show(loading_text(at.elapsed_s, at.status, at.resident_bytes, at.model_bytes)),
    ) as (running, load_ms):  # fmt: skip
        line.clear()
        subject = _subject(
            plan,
            engine=engine.kind.value,
            version=engine.version,
            log=running.log,
            pid=None if running.launch.joins else running.pid,
            load_ms=load_ms,
        )
        return _measured(target_of(endpoint, plan), asked, subject)


def _subject(
    plan: "Plan", *, engine: str, version: str | None, log: Path, pid: int | None, load_ms: float | None
) -> "Subject":
    from glmplan.commands.proof import memory_of
    from glmplan.launchers import identity
    from glmplan.launchers.bench_report import Subject

    return Subject(
        engine=engine,
        engine_version=version,
        model=plan.model.name,
        quantization=plan.model.quantization,
        synthetic=plan.model.synthetic,
        machine_fingerprint=plan.machine.fingerprint,
        memory=memory_of(log, plan),
        load_ms=load_ms,
        resident_bytes=None if pid is None else identity.resident_bytes(pid),
        plan=plan,
    )


def _plan_of(record: "RunRecord") -> "Plan":
    if record.plan_file is None:
        message = f"the engine on port {record.endpoint.port} has no copy of its plan"
        raise InputError(message, hint="stop it and start it again with glmplan run")
    return load_plan(record.plan_file)


def _measured(target: "Target", asked: Asked, subject: "Subject") -> "BenchReport":
    """Take the samples, say each as it comes, and price them."""
    from dataclasses import replace

    from glmplan.launchers.bench import measure_points
    from glmplan.launchers.bench_report import report
    from glmplan.profiles.energy import meter_for
    from glmplan.render.bench import fill_text, sample_line
    from glmplan.render.progress import ProgressLine

    settings = _settings(asked, target, subject.plan)
    with ProgressLine() as line, meter_for(target.url) as meter:
        points, left_out = measure_points(
            target, settings, meter=meter,
            on_sample=lambda sample: _say(line, sample_line(sample)),
            on_fill=lambda done, depth: line.show(fill_text(done, depth)),
        )  # fmt: skip
    subject = replace(subject, energy=meter.described)
    return _priced(report(target.url, settings, points, subject, left_out=left_out), asked)


def _kept(done: "BenchReport") -> "tuple[BenchReport, GlmplanError | None]":
    """The report with its number among the records of this machine; or why it could not be kept."""
    from dataclasses import replace

    from glmplan.launchers import history

    if done.measurement.machine_fingerprint == _UNKNOWN:
        return done, None  # somebody else's server
    try:
        path = history.append(done.measurement)
    except GlmplanError as error:
        message = f"measured, but not kept: {error.message}"
        return done, GlmplanError(message, hint=error.hint, facts=error.facts)
    done = replace(done, record=history.number_of(done.measurement))
    sys.stderr.write(f"kept as record {done.record} in {path}\n")
    return done, None


def _priced(done: "BenchReport", asked: Asked) -> "BenchReport":
    from dataclasses import replace

    from glmplan.planner.cost import cost_of
    from glmplan.profiles.hosted_price import hosted_price

    energy = done.measurement.energy
    cost = cost_of(
        done.summary,
        done.measurement.samples,
        hosted_price(),
        kwh_price=asked.kwh_price,
        watts=asked.watts,
        no_meter=energy.why if energy is not None and energy.meter is None else None,
    )
    return replace(done, cost=cost)


def _say(line: "ProgressLine", text: str) -> None:
    line.clear()
    sys.stderr.write(text + "\n")


def _show(report: "BenchReport", plan: "Plan | None", *, as_json: bool) -> None:
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(report) + "\n")
        return
    from glmplan.render.bench import bench_lines

    sys.stdout.write("\n".join(bench_lines(report, None if plan is None else plan.speed)) + "\n")
