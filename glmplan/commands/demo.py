"""`glmplan demo`: the whole way on this machine, without a download: detect, plan, launch, measure, export."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.commands.situation import Situation, situation_of
from glmplan.engine import EngineKind
from glmplan.units import format_bytes

if TYPE_CHECKING:
    from glmplan.plan import Plan
    from glmplan.running import LaunchReport

_QUANT: Final = "q4_K_M"
_LAYERS: Final = 4
_N_CTX: Final = "4096"


def demo(
    layers: Annotated[int, typer.Option(min=2, max=47, help="Layers of the synthetic model, of 47.")] = _LAYERS,
    engine: Annotated[str | None, typer.Option(help="Use this kind of engine.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the synthetic model file.")] = False,
) -> None:
    """Run everything once for real; a cut model with synthetic weights stands in for the download."""
    here = situation_of(None, None, engine=engine)
    _step(1, "This machine")
    _show_machine(here)
    _step(2, "The plan for GLM-4.7-Flash, full size, on this machine")
    _show_full_plan(here)
    _step(3, f"A stand-in: {layers} of 47 layers, true shapes, synthetic weights")
    path = _write_stand_in(layers)
    try:
        plan, report = _launch(here, path)
    finally:
        if not keep:
            path.unlink(missing_ok=True)
    _step(5, "The same launch without glmplan")
    script = _export(plan)
    typer.echo(f"  {script}: a POSIX script with every knob of that plan (glmplan export script)")
    typer.echo("")
    typer.echo(_closing(report))


def _step(number: int, title: str) -> None:
    typer.echo(f"\n[{number}/5] {title}")


def _show_machine(here: Situation) -> None:
    machine = here.machine
    memory = machine.memory
    cores = f"{machine.cpu.usable_cores} usable cores"
    typer.echo(f"  {machine.cpu.name or 'unknown processor'}, {cores}")
    sizes = [("total", memory.total_bytes), ("limit", memory.limit_bytes), ("available", memory.available_bytes)]
    known = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes if size is not None)
    typer.echo(f"  main memory: {known} (measured)")
    for gpu in machine.gpus:
        usable = "unknown" if gpu.memory_usable_bytes is None else format_bytes(gpu.memory_usable_bytes)
        typer.echo(f"  {gpu.name}: {usable} usable (measured)")
    engine = here.engine
    if engine is not None:
        backends = ", ".join(engine.backends) or "backends unknown"
        kinds = {kind.value for kind in EngineKind if kind.is_llama_cpp}
        launchable = sum(found.kind in kinds for found in machine.engines)
        typer.echo(f"  engine: {engine.kind} {engine.version or ''} ({backends}), the best of {launchable} here")
    for note in here.notes:
        typer.echo(f"  ! {note}")


def _show_full_plan(here: Situation) -> None:
    from glmplan.commands.plan import make_plan
    from glmplan.errors import PlanningError
    from glmplan.render.plan import show_plan

    try:
        show_plan(make_plan(here))
    except PlanningError as error:
        # A small machine still sees the rest: that no size fits is an answer.
        typer.echo(f"  {error.message}\n  {error.hint}")


def _write_stand_in(layers: int) -> Path:
    import time

    from glmplan.paths import cache_folder
    from glmplan.profiles.recipes import catalog_profile
    from glmplan.profiles.synthetic import write_synthetic

    profile = catalog_profile(_QUANT, n_layer=layers)
    path = cache_folder() / "demo" / f"glm-4.7-flash-{_QUANT}-{layers}-layers-synthetic.gguf"
    started = time.monotonic()
    on_disk = write_synthetic(path, profile, random_weights=True)
    seconds = time.monotonic() - started
    whole = format_bytes(profile.tensor_bytes)
    typer.echo(f"  {path.name}: {whole} of tensors, {format_bytes(on_disk)} on disk")
    typer.echo(f"  written in {seconds:.1f} s (measured)")
    typer.echo("  its text is noise, because the weights are; its memory and its speed are real")
    return path


def _launch(here: Situation, path: Path) -> "tuple[Plan, LaunchReport]":
    from glmplan.commands.launching import endpoint_for, engine_for
    from glmplan.commands.plan import make_plan
    from glmplan.commands.proof import prove
    from glmplan.commands.serving import ONCE, serving
    from glmplan.proof_settings import ProofKind, ProofSettings
    from glmplan.render.progress import ProgressLine, loading_text
    from glmplan.render.proof import report_lines

    plan = make_plan(here, gguf=str(path), n_ctx=_N_CTX, depth=0)
    engine = engine_for(plan)
    _step(4, f"Launch, answer, measure: {engine.kind} {engine.version or ''}")
    with ProgressLine() as line, serving(
        plan, engine, endpoint_for("127.0.0.1", 0, None), ONCE,
        on_progress=lambda at: line.show(loading_text(at.elapsed_s, at.status, at.resident_bytes, at.model_bytes)),
    ) as service:  # fmt: skip
        line.clear()
        report = prove(service, ProofSettings(kind=ProofKind.SHORT))
    sys.stdout.write("\n".join(["", *report_lines(report)]) + "\n")
    typer.echo("  stopped; nothing of it runs on")
    return plan, report


def _export(plan: "Plan") -> Path:
    from glmplan.launchers.export.exported import ExportRequest
    from glmplan.launchers.export.formats import export
    from glmplan.launchers.launch import Endpoint
    from glmplan.paths import data_folder, write_atomic

    exported = export("script", ExportRequest(plan=plan, endpoint=Endpoint(host="127.0.0.1", port=8080)))
    path = data_folder() / "demo" / "launch.sh"
    write_atomic(path, exported.text, mode=exported.mode)
    return path


def _closing(report: "LaunchReport") -> str:
    speed = report.proof.speeds[0].measured
    measured = f"prefill {speed.prefill_tokens_per_s:.0f} and decode {speed.decode_tokens_per_s:.1f} tokens/s"
    resident = "" if report.resident_bytes is None else f", {format_bytes(report.resident_bytes)} resident"
    return (
        f"done: ready after {report.load_ms / 1000:.1f} s, {measured}{resident} (measured; a cut model with synthetic "
        "weights). Next: glmplan plan --why"
    )
