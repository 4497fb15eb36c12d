"""Model files by any name: their header, their profile for a planner, their inspection for a person.

`read_profile("/models/x.gguf")`, `read_profile("hf:org/repo/x.gguf")`, `read_profile("ollama:glm-4.7-flash")`.
Only headers are read, from a local file or by HTTP ranges; split files are read from their first part on.
"""

from pathlib import Path

from glmplan.errors import InputError
from glmplan.inspection import Inspection
from glmplan.model import ModelProfile
from glmplan.profiles.gguf_bytes import ByteSource, LocalFile
from glmplan.profiles.gguf_inspect import inspection_of
from glmplan.profiles.gguf_profile import profile_of
from glmplan.profiles.gguf_shards import GgufModel, read_shards
from glmplan.profiles.locate import Access, Located, locate, this_machine


def read_profile(source: str | Path, *, access: Access | None = None) -> ModelProfile:
    """The profile of the model file(s) that `source` names.

    Args:
        source: a path, an http(s) address, `hf:REPO/FILE` or `ollama:TAG`.
        access: where to look and whether the network may be used; by default as this user, with the network.

    Raises:
        InputError: nothing there, or the server refuses.
        GgufError: not a GGUF, truncated or damaged.
        UnsupportedModel: not a language model with attention.
    """
    located = _locate(source, access)
    model = read_located(located, access)
    return profile_of(
        model,
        file=None if located.remote else located.place,
        sha256=located.sha256 if len(model.shards) == 1 else None,
        download=located.download,
    )


def inspect_model(source: str | Path, *, access: Access | None = None, with_tensors: bool = False) -> Inspection:
    """Everything the header(s) of `source` tell; works for any architecture.

    Args:
        source: a path, an http(s) address, `hf:REPO/FILE` or `ollama:TAG`.
        access: where to look and whether the network may be used; by default as this user, with the network.
        with_tensors: include the table of tensors.

    Raises:
        InputError: nothing there, or the server refuses.
        GgufError: not a GGUF, truncated or damaged.
    """
    located = _locate(source, access)
    model = read_located(located, access)
    return inspection_of(
        model,
        source=located.reference,
        store=located.store,
        sha256=located.sha256 if len(model.shards) == 1 else None,
        with_tensors=with_tensors,
    )


def read_located(located: Located, access: Access | None = None) -> GgufModel:
    """Header(s) of a located file."""

    def open_part(place: str) -> ByteSource:
        if not located.remote:
            return LocalFile(Path(place))
        from glmplan.profiles.ranges import RangeSource

        limits = (access or this_machine()).limits
        return RangeSource(place, credentials=located.credentials, limits=limits)

    return read_shards(located.place, open_part)


def _locate(source: str | Path, access: Access | None) -> Located:
    if isinstance(source, Path):
        return Located(reference=str(source), place=str(source), remote=False)
    if not source:
        message = "no model file named"
        raise InputError(message, hint="give a path, an http(s) address, hf:REPO/FILE or ollama:TAG")
    return locate(source, access or this_machine())
