"""A model file on a hub, on its way to this machine, and where it ended up."""

import re
from enum import StrEnum
from typing import Final, Literal

from glmplan.noun import noun

FETCH_SCHEMA: Final = "glmplan/fetch/1"
_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@noun
class HubFile:
    """One file of a hub repository: `organisation/name`, a branch, tag or commit, and the path inside."""

    repo: str
    file: str
    revision: str = "main"

    @property
    def reference(self) -> str:
        """As a user writes it."""
        at = "" if self.revision == "main" else f"@{self.revision}"
        return f"hf:{self.repo}{at}/{self.file}"

    @property
    def parts(self) -> tuple["HubFile", ...]:
        """All files of a model that is split as `NAME-00001-of-00003.gguf`, in order; otherwise the file itself."""
        match = _PART.fullmatch(self.file)
        if match is None:
            return (self,)
        return tuple(
            HubFile(
                repo=self.repo, revision=self.revision, file=f"{match['stem']}-{number:05d}-of-{match['count']}.gguf"
            )
            for number in range(1, int(match["count"]) + 1)
        )


class FetchPhase(StrEnum):
    """What is being done with the bytes."""

    FETCHING = "fetching"
    CHECKING = "checking"


@noun
class FetchProgress:
    """How far a fetch has come; bytes are of all files of the model together.

    The rate is over the last seconds; rate and time left are None until there is something to tell them by.
    """

    file: str
    phase: FetchPhase
    done_bytes: int
    total_bytes: int
    rate_bytes_per_s: float | None = None
    left_s: float | None = None


@noun
class FetchedFile:
    """One file of the model: its whole length, and how many bytes came over the network for it this time."""

    path: str
    bytes: int
    fetched_bytes: int = 0
    resumed_from_bytes: int = 0
    sha256: str | None = None
    reference: str | None = None
    commit: str | None = None


@noun
class FetchReport:
    """A model that is on this machine now; `path` is what an engine is given.

    `store` names the cache it was found in or put into; None for a file in no known cache.
    """

    schema: Literal["glmplan/fetch/1"] = FETCH_SCHEMA
    path: str
    store: str | None
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def fetched_bytes(self) -> int:
        """Bytes that came over the network."""
        return sum(file.fetched_bytes for file in self.files)
