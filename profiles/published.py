"""Which published file holds a quantisation, and which copy of one is on this machine already."""

from pathlib import Path
from typing import Final

from glmplan.errors import GlmplanError, ProfileError
from glmplan.fetched import FetchedFile, FetchReport, HubFile
from glmplan.profiles.gguf import read_located
from glmplan.profiles.gguf_shards import part_path
from glmplan.profiles.host import Host
from glmplan.profiles.locate import Located
from glmplan.profiles.probes.models_here import find_models
from glmplan.profiles.published_rows import published_rows, row_named
from glmplan.profiles.recipes import DEFAULT_MODEL, model_facts
from glmplan.profiles.stores import Found, Stores, find_hub_file

_LATER_PARTS_OF: Final = "00001-of-"


def published_file(quant: str, model: str = DEFAULT_MODEL) -> HubFile:
    """The file to fetch for a quantisation: the first that the catalog names.

    Raises:
        ProfileError: the catalog names none; the hint lists those it has.
    """
    facts = model_facts(model)
    row = row_named(facts, quant)
    if row is not None:
        return HubFile(repo=row.repo, file=row.file)
    names = ", ".join(dict.fromkeys(row.quant for row in published_rows(facts)))
    message = f"no published file of {model} as {quant!r} is known"
    raise ProfileError(
        message, hint=f"known: {names}; or name one as hf:REPO/FILE" if names else "name one as hf:REPO/FILE"
    )


def copy_of(file: HubFile, stores: Stores) -> FetchReport | None:
    """A whole copy of a hub's file, with all its parts, that some tool keeps on this machine."""
    found: list[Found] = []
    for part in file.parts:
        here = find_hub_file(stores, part.repo, part.file, part.revision)
        # The engine opens the later parts beside the first.
        if here is None or (found and here.path.parent != found[0].path.parent):
            return None
        found.append(here)
    if file.file.endswith(".gguf") and not is_whole(found[0].path):
        return None
    files = tuple(
        FetchedFile(path=str(here.path), bytes=here.path.stat().st_size, sha256=here.sha256, reference=part.reference)
        for here, part in zip(found, file.parts, strict=True)
    )
    return FetchReport(path=str(found[0].path), store=found[0].store, files=files)


def copy_of_quant(quant: str, host: Host, model: str = DEFAULT_MODEL) -> FetchReport | None:
    """A whole copy of the model in this quantisation, whoever published it, that is on this machine."""
    if model != DEFAULT_MODEL:
        return None  # the stores are searched for files of the default model only
    architecture = str(model_facts(model)["architecture"])
    for candidate in find_models(host):
        path = Path(candidate.path)
        if (candidate.quantization or "").lower() != quant.lower() or not path.is_file():
            continue
        if is_whole(path, architecture=architecture):
            return FetchReport(path=str(path), store=candidate.store, files=local_files(path))
    return None


def local_files(path: Path) -> tuple[FetchedFile, ...]:
    """A local model as files, by its first part."""
    parts = [str(path)]
    if _LATER_PARTS_OF in path.name:
        count = int(path.name.rpartition(_LATER_PARTS_OF)[2].partition(".")[0])
        parts = [part_path(str(path), number, count) or str(path) for number in range(1, count + 1)]
    return tuple(FetchedFile(path=part, bytes=Path(part).stat().st_size) for part in parts)


def is_whole(path: Path, *, architecture: str | None = None) -> bool:
    """Whether the headers of a GGUF and its parts can be read and the files are as long as these say."""
    try:
        found = read_located(Located(reference=str(path), place=str(path), remote=False)).keys.architecture
    except GlmplanError:
        return False
    return architecture is None or found == architecture
