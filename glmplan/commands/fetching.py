"""What `fetch` and `run` share: which file is wanted, which copy is here, and how to get one."""

import dataclasses
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from glmplan.errors import GlmplanError, InputError
from glmplan.fetched import FetchReport, HubFile

if TYPE_CHECKING:
    from glmplan.fetched import FetchProgress
    from glmplan.plan import Plan, PlannedModel

_SNAPSHOT: Final = re.compile(r"models--(?P<repo>[^/]+--[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/(?P<file>.+)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of the hub; with a quantisation, any copy of the model in it will do."""

    file: HubFile
    quant: str | None = None
    model: str | None = None
    sha256: str | None = None


def wanted_quant(quant: str, model: str | None = None) -> Wanted:
    """The published file of a quantisation.

    Raises:
        ProfileError: none is known.
    """
    from glmplan.profiles.published import published_file
    from glmplan.profiles.recipes import DEFAULT_MODEL

    return Wanted(file=published_file(quant, model or DEFAULT_MODEL), quant=quant, model=model or DEFAULT_MODEL)


def wanted_reference(reference: str) -> Wanted:
    """The file that `hf:REPO/FILE` or an address of the hub names.

    Raises:
        InputError: it names none.
    """
    from glmplan.profiles.locate import hub_file, this_machine

    return Wanted(file=hub_file(reference, this_machine()))


def wanted_by(model: "PlannedModel") -> Wanted:
    """The file a plan is for: where it names one of the hub, that one; otherwise the published one of its quantisation.

    Raises:
        InputError: it can be had from no hub.
    """
    if model.file.startswith(("hf:", "http://", "https://")):
        return dataclasses.replace(wanted_reference(model.file), sha256=model.sha256)
    if model.synthetic:
        message = f"the plan is for a synthetic model, {model.file}, which no hub has"
        raise InputError(message, hint="glmplan demo makes one")
    kept = _SNAPSHOT.search(model.file)
    if kept is not None:
        repo = kept["repo"].replace("--", "/", 1)
        return Wanted(file=HubFile(repo=repo, revision=kept["commit"], file=kept["file"]), sha256=model.sha256)
    return wanted_quant(model.quantization, model.name)


def fetch_command(model: "PlannedModel") -> str:
    """What a user types to get the file of a plan."""
    try:
        wanted = wanted_by(model)
    except GlmplanError:
        return "download it, or plan again with --gguf PATH"
    from glmplan.profiles.recipes import DEFAULT_MODEL

    if wanted.quant is None:
        return f"glmplan fetch {shlex.quote(wanted.file.reference)}"
    named = wanted.model or DEFAULT_MODEL
    of_model = "" if named == DEFAULT_MODEL else f"--model {shlex.quote(named)} "
    return f"glmplan fetch {of_model}--quant {shlex.quote(wanted.quant)}"


def is_here(model: "PlannedModel") -> bool:
    """Whether the very file a plan names is on this machine, with all its parts and as long as planned."""
    from glmplan.launchers.model_file import require_model

    try:
        require_model(model)
    except GlmplanError:
        return False
    return True


def copy_here(wanted: Wanted) -> FetchReport | None:
    """A whole copy that some tool keeps on this machine already; the network is not used."""
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.locate import this_machine
    from glmplan.profiles.published import copy_of, copy_of_quant

    here = copy_of(wanted.file, this_machine().stores)
    if here is None and wanted.quant is not None and wanted.model is not None:
        here = copy_of_quant(wanted.quant, LocalHost(), wanted.model)
    return here


def bring(wanted: Wanted, *, offline: bool = False, update: bool = False) -> FetchReport:
    """A copy that is here, or else the hub's file, fetched into its cache; progress goes to standard error.

    Args:
        wanted: what to get.
        offline: use no network.
        update: ask the hub even when a copy is here.

    Raises:
        InputError: not here while the network is forbidden; or the hub refuses.
        FetchError: no room, or it cannot be brought here whole.
    """
    from glmplan.profiles.locate import this_machine

    access = this_machine(offline=offline)
    here = None if update and not access.hub_is_offline else copy_here(wanted)
    if here is not None:
        return here
    if access.hub_is_offline:
        message = f"{wanted.file.reference} is not on this machine, and the network is not to be used"
        raise InputError(
            message, hint="drop --offline (and HF_HUB_OFFLINE)", facts={"reference": wanted.file.reference}
        )
    return _fetch(wanted)


def _fetch(wanted: Wanted) -> FetchReport:
    from glmplan.launchers.fetch.fetch import fetch
    from glmplan.launchers.fetch.hub import Hub
    from glmplan.launchers.fetch.limits import limits_of
    from glmplan.profiles.locate import this_machine
    from glmplan.profiles.probes.disk import hub_cache
    from glmplan.render.fetch import progress_text
    from glmplan.render.progress import ProgressLine

    access = this_machine()
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    hub = Hub(access.hub, access.credentials, limits_of(access.env))
    sys.stderr.write(f"{wanted.file.reference} from {access.hub}\n")
    with ProgressLine() as line:

        def say(text: str) -> None:
            line.clear()
            sys.stderr.write(text + "\n")

        def show(at: "FetchProgress") -> None:
            line.show(progress_text(at, width))

        try:
            report = fetch(hub, wanted.file, hub_cache(access.env), say=say, on_progress=show)
        except KeyboardInterrupt:
            say("stopped; what has come so far is kept, and the same command goes on from there")
            raise
        finally:
            hub.close()
    if wanted.sha256 is not None and wanted.sha256 not in {file.sha256 for file in report.files}:
        note = "the hub's file is not the one the plan was made for: plan again to be sure of its numbers"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return report


def with_local_file(plan: "Plan") -> "Plan":
    """`plan` with the copy of its model that is on this machine, wherever that is; unchanged when none is."""
    if Path(plan.model.file).exists():
        return plan
    try:
        here = copy_here(wanted_by(plan.model))
    except GlmplanError:
        return plan
    return plan if here is None else with_file_of(here, plan)


def with_file_of(report: FetchReport, plan: "Plan") -> "Plan":
    """`plan` for the very file of `report`."""
    model = dataclasses.replace(plan.model, file=report.path, file_bytes=report.total_bytes)
    return dataclasses.replace(plan, model=model)


def bring_for(plan: "Plan") -> "Plan":
    """`plan` with its model file on this machine, fetched if need be.

    Raises:
        InputError: it can be had from no hub, or the hub refuses.
        FetchError: no room, or it cannot be brought here whole.
    """
    from glmplan.render.fetch import report_lines

    if is_here(plan.model):
        return plan
    report = bring(wanted_by(plan.model))
    sys.stderr.write("\n".join(report_lines(report)) + "\n")
    return with_file_of(report, plan)
