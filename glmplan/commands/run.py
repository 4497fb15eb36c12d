"""`glmplan run`: launch a plan, wait until it answers, show it working, and stay with it."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.boundary import end_answer
from glmplan.commands.fetching import bring_for, with_local_file
from glmplan.commands.launching import (
    DEFAULT_PORT,
    endpoint_for,
)
from glmplan.commands.numbers import finite
from glmplan.commands.other_engine import plan_and_engine, warn_of_losses
from glmplan.commands.rehearse_first import rehearsed_first
from glmplan.proof_settings import DEFAULT_PROOF_SECONDS, ProofKind, ProofSettings

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.launchers.background import Background
    from glmplan.launchers.launch import Endpoint
    from glmplan.plan import Plan
    from glmplan.running import LaunchReport


def run(
    plan_file: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="A plan file, or - for standard input; none: plan first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact command and start nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave the engine running in the background.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback an API key is demanded.")
    ] = "127.0.0.1",
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the API key clients must send (or GLMPLAN_API_KEY)."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(callback=finite, metavar="SECONDS", help="How long loading may take; default: by file size."),
    ] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the model file first if it is not here.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Launch a plan that was made for another machine.")] = False,
    engine_kind: Annotated[
        str | None, typer.Option("--engine", help="Run with this kind of engine: ollama, mlx-lm, llama-server, ...")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="MLX weights for mlx-lm; default: those published.")
    ] = None,
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="End when the engine dies, instead of starting it again.")
    ] = False,
    no_step_down: Annotated[
        bool, typer.Option("--no-step-down", help="End when memory runs out, instead of trying a smaller plan.")
    ] = False,
    proof: Annotated[
        ProofKind, typer.Option(help="How much of the context to fill as a proof; auto: what --proof-seconds allows.")
    ] = ProofKind.AUTO,
    proof_seconds: Annotated[
        float,
        typer.Option(callback=finite, metavar="SECONDS", min=0, help="How long --proof auto may fill the context."),
    ] = DEFAULT_PROOF_SECONDS,
    no_rehearse: Annotated[
        bool, typer.Option("--no-rehearse", help="Without PLAN: no rehearsal before the first launch on this machine.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/launch/1).")] = False,
) -> None:
    """Launch a plan: start its engine, wait until it answers, show one answer and how forecast and fact compare."""
    background = _background() if detach and not dry_run else None
    plan, engine = plan_and_engine(plan_file, engine_kind, weights=weights, force=force)
    if plan_file is None and engine.kind.is_llama_cpp and not (no_rehearse or dry_run):
        plan = rehearsed_first(plan, engine, fetch=fetch)
    plan = bring_for(plan) if fetch and not dry_run else with_local_file(plan)
    endpoint = endpoint_for(host, port, api_key_file, engine)
    if dry_run:
        _show_command(plan, engine, endpoint, as_json=as_json)
        return
    from glmplan.commands.proof import proven
    from glmplan.commands.serving import MOST_STEPS, Survival, serving
    from glmplan.launchers.restarts import NEVER, RestartPolicy
    from glmplan.render.progress import ProgressLine, loading_text

    sys.stderr.write(f"starting {engine.kind} {engine.version or ''} (the plan's engine) on {endpoint.url}\n")
    survival = Survival(restarts=NEVER if no_restart else RestartPolicy(), step_downs=0 if no_step_down else MOST_STEPS)
    with ProgressLine() as line, serving(
        plan, engine, endpoint, survival, detached=detach, timeout_s=timeout,
        on_progress=lambda at: line.show(loading_text(at.elapsed_s, at.status, at.resident_bytes, at.model_bytes)),
    ) as service:  # fmt: skip
        line.clear()
        report = proven(service, ProofSettings(kind=proof, limit_s=proof_seconds, speak=not as_json))
        _show(report, as_json=as_json)
        if background is not None:
            background.leave(service.process.log)
            service.went_to_background()
        service.stay()


def _background() -> "Background":
    """The copy of this process that goes on in the background; call first, while there is little to copy."""
    from glmplan.launchers import background

    return background.go()


def _show(report: "LaunchReport", *, as_json: bool) -> None:
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(report) + "\n")
        end_answer()
        return
    from glmplan.render.proof import report_lines

    sys.stdout.write("\n".join(report_lines(report)) + "\n")
    sys.stdout.flush()


def _show_command(plan: "Plan", engine: "Engine", endpoint: "Endpoint", *, as_json: bool) -> None:
    """The command with shell quoting; configuration files it reads are written, so that it can be run as it stands."""
    from glmplan.launchers import records
    from glmplan.launchers.assemble import assemble
    from glmplan.paths import write_atomic

    launch = assemble(plan, engine, endpoint, folder=records.folder())
    warn_of_losses(launch)
    for file in launch.files:
        write_atomic(Path(file.path), file.text, mode=0o600)
        sys.stderr.write(f"wrote {file.path}\n")
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps({"argv": launch.argv, "env": dict(launch.env)}) + "\n")
        return
    variables = [f"{name}={shlex.quote(value)}" for name, value in launch.env]
    sys.stdout.write(" ".join([*variables, shlex.join(launch.argv)]) + "\n")
