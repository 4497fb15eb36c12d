"""`glmplan export`: write down how to run a plan elsewhere."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.engine import EngineKind
from glmplan.errors import ExportRefused, InputError

if TYPE_CHECKING:
    from glmplan.cluster import ClusterPlan
    from glmplan.launchers.export.checks.report import Tools
    from glmplan.launchers.export.exported import Exported, ExportRequest
    from glmplan.launchers.export.formats import Format
    from glmplan.launchers.launch import Endpoint
    from glmplan.plan import Plan

_SERVER: Final = "llama-server"


def export(
    format_name: Annotated[
        str | None, typer.Argument(metavar="FORMAT", help="What to write; --list shows them.")
    ] = None,
    plan_file: Annotated[
        str | None,
        typer.Argument(metavar="[PLAN]", help="A plan or cluster plan, or - for standard input; none: plan first."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Have the file judged by the strongest offline check there is.")
    ] = False,
    use: Annotated[
        str | None, typer.Option(help="general or coding: sampling and answer length; default: what the target is for.")
    ] = None,
    thinking: Annotated[bool, typer.Option(help="Whether the model thinks before it answers.")] = True,
    host: Annotated[str, typer.Option(help="Address to listen on, or to reach the server at.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default: the target's own.")] = None,
    alias: Annotated[str, typer.Option(help="Name of the model for clients.")] = "glm-4.7-flash",
    api_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="On the target: a file with the API key clients must send.")
    ] = None,
    model_file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the model file lies on the target, if elsewhere.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where llama-server lies on the target, if elsewhere.")
    ] = None,
    show_formats: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/export/1).")] = False,
) -> None:
    """Write a plan as a script, a service, another runtime's configuration or a client's."""
    if show_formats:
        _list(as_json=as_json)
        return
    if format_name is None:
        message = "no format was given"
        raise InputError(message, hint="glmplan export --list shows the formats")
    from glmplan.launchers.export.formats import export as write
    from glmplan.launchers.export.formats import format_of

    target = format_of(format_name)
    endpoint = _endpoint(host, port or target.port, alias, api_key_file)
    cluster = _cluster_in(plan_file)
    plan, exact_size = _plan(plan_file, model_file, cluster)
    request = _request(plan, endpoint, use or target.use.value, thinking=thinking, exact_size=exact_size)
    request = replace(request, cluster=cluster)
    request = _with_server(request, server, look=target.names_program)
    exported = write(target.name, request)
    if plan.placement.engine is EngineKind.IK_LLAMA:
        why = f"the plan was made for {plan.placement.engine}, the file is not: the plan's speed is not its own"
        exported = replace(exported, losses=(*exported.losses, why))
    if output is not None:
        from glmplan.commands.answer_file import write_answer

        write_answer(output, exported.text, mode=exported.mode)
        sys.stderr.write(f"wrote {output}\n")
    elif not as_json:
        sys.stdout.write(exported.text)
        sys.stdout.flush()
    for loss in exported.losses:
        sys.stderr.write(f"warning: {loss}\n")
    judges = _check(target, exported) if check else ()
    if as_json:
        _show_json(target, exported, output, judges)


def _endpoint(host: str, port: int, alias: str, api_key_file: str | None) -> "Endpoint":
    """Where to listen; beyond this machine only with a key.

    Raises:
        InputError: an address that others can reach, without a key file.
    """
    from glmplan.launchers.launch import Endpoint

    endpoint = Endpoint(host=host, port=port, alias=alias, api_key_file=api_key_file)
    if not endpoint.is_loopback and api_key_file is None:
        message = f"{host} can be reached from other machines, and no API key was given"
        raise InputError(message, hint="--api-key-file FILE names a file with the key on the target machine")
    return endpoint


def _cluster_in(plan_file: str | None) -> "ClusterPlan | None":
    """The cluster plan in the file, if it is one."""
    from glmplan.launchers.json_values import mapping

    if plan_file in {None, "-"}:
        return None
    path = Path(plan_file or "")
    try:
        schema = mapping(json.loads(path.read_text(encoding="utf-8"))).get("schema")
    except (OSError, ValueError):
        return None  # what is wrong with it is said by whoever reads it as a plan
    if not str(schema).startswith("glmplan/cluster/"):
        return None
    from glmplan.commands.cluster_up import load_cluster_plan

    return load_cluster_plan(path)


def _plan(plan_file: str | None, model_file: str | None, cluster: "ClusterPlan | None") -> "tuple[Plan, bool]":
    """The plan to export (the first of a cluster's), its file named as the target sees it, and if its size is known.

    Raises:
        InputError: `model_file` is no path.
    """
    from glmplan.commands.launching import load_plan
    from glmplan.launchers.export.exported import is_file

    if model_file is not None and not is_file(model_file):
        message = f"--model-file {model_file!r} is no path of a file"
        raise InputError(message, hint="--model-file /path/to/the/file.gguf")
    if cluster is None:
        plan = load_plan(plan_file)
    else:
        from glmplan.cluster import first_plan

        plan = first_plan(cluster)
    if model_file is None and not is_file(plan.model.file):
        from glmplan.commands.fetching import with_local_file

        plan = with_local_file(plan)
    exact = is_file(plan.model.file)
    name = model_file or plan.model.file
    here = _size_of(name)
    if here is None:
        return _renamed(plan, name), exact
    return _renamed(plan, str(Path(name).absolute()), plan.model.file_bytes if exact else here), True


def _size_of(name: str) -> int | None:
    """Bytes of the file `name`; None when there is none on this machine, or none we may look at."""
    try:
        path = Path(name)
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def _renamed(plan: "Plan", file: str, file_bytes: int | None = None) -> "Plan":
    return replace(plan, model=replace(plan.model, file=file, file_bytes=file_bytes or plan.model.file_bytes))


def _request(plan: "Plan", endpoint: "Endpoint", use: str, *, thinking: bool, exact_size: bool) -> "ExportRequest":
    from glmplan.launchers.export.exported import ExportRequest, Use

    try:
        chosen = Use(use.lower())
    except ValueError as error:
        message = f"no use {use!r}"
        raise InputError(message, hint="--use general or --use coding") from error
    return ExportRequest(plan=plan, endpoint=endpoint, use=chosen, thinking=thinking, exact_size=exact_size)


def _with_server(request: "ExportRequest", server: str | None, *, look: bool) -> "ExportRequest":
    """Where llama-server lies: as told, or for files that need to know, the one on the PATH; with its libraries."""
    import shutil

    path = server or (shutil.which(_SERVER) if look else None)
    if path is None:
        return request
    library = Path(path).absolute().parent.parent / "lib"
    beside = any(library.glob("libggml*")) and not library.is_relative_to("/usr")
    return replace(request, server=path, library_path=str(library) if beside else None)


def _show_json(target: "Format", exported: "Exported", output: Path | None, judges: tuple[str, ...]) -> None:
    from glmplan.jsonio import dumps

    document = {
        "schema": "glmplan/export/1",
        "format": target.name,
        "how": target.how,
        "file": None if output is None else str(output),
        "text": exported.text,
        "mode": f"{exported.mode:04o}",
        "losses": exported.losses,
        "checked_by": judges,
    }
    sys.stdout.write(dumps(document) + "\n")


def _check(target: "Format", exported: "Exported") -> tuple[str, ...]:
    """Who judged the file; they are named on standard error too.

    Raises:
        ExportRefused: a judge refused it.
    """
    from glmplan.launchers.export.formats import check

    report = check(target.name, exported, _tools())
    judges = ", ".join(report.by)
    if report.problems:
        message = f"{judges} refused the {target.name} export: {'; '.join(report.problems)}"
        raise ExportRefused(
            message,
            hint="update the program, or glmplan if the program is current",
            facts={"by": list(report.by), "problems": list(report.problems)},
        )
    sys.stderr.write(f"checked by {judges}: accepted\n")
    return report.by


def _tools() -> "Tools":
    """The programs of this machine that can judge an export."""
    import shutil

    from glmplan.launchers.export.checks.report import JUDGES, Tools
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.engine import find_engines

    engines = {engine.kind: engine for engine in find_engines(LocalHost())}
    found = {name: path for name in JUDGES if (path := shutil.which(name))}
    return Tools(llama_server=engines.get(EngineKind.LLAMA_SERVER), programs=found)


def _list(*, as_json: bool) -> None:
    from glmplan.launchers.export.formats import FORMATS

    if as_json:
        from glmplan.jsonio import dumps

        rows = [{"format": known.name, "title": known.title, "how": known.how} for known in FORMATS.values()]
        sys.stdout.write(dumps({"schema": "glmplan/export-formats/1", "formats": rows}) + "\n")
        return
    width = max(len(name) for name in FORMATS)
    for known in FORMATS.values():
        sys.stdout.write(f"{known.name:<{width}}  {known.title}\n")
