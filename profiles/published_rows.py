"""The published files of a model as the catalog lists them: where, how large, and how their tensor types are known."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from glmplan.noun import noun


class KnownBy(StrEnum):
    """How the types of a published file's tensors are known.

    `recipe`: the size is the recipe's to the byte. `listed`: somebody printed them, or they follow rules that were
    printed for a sister file, and the sum is the file's to the byte. `assumed`: at most the size is known.
    """

    RECIPE = "recipe"
    LISTED = "listed"
    ASSUMED = "assumed"


@noun
class PublishedFile:
    """One row.

    `n_bytes` counts all parts and headers, within `uncertainty_bytes`; None when nobody stated it. `like` names the
    recipe it is made by, but for `changes` (rules that come first).
    """

    repo: str
    file: str
    quant: str
    n_bytes: int | None
    uncertainty_bytes: int
    header_bytes: int
    sha256: str | None
    like: str
    changes: tuple[Mapping[str, Any], ...]
    known_by: KnownBy
    source: str

    @property
    def publisher(self) -> str:
        """The account that published it."""
        return self.repo.partition("/")[0]

    @property
    def reference(self) -> str:
        """As `--gguf` and `glmplan inspect` take it."""
        return f"hf:{self.repo}/{self.file}"

    @property
    def tensor_bytes(self) -> int | None:
        """Bytes of tensor data, the larger end of what is known; None when the size is not."""
        return None if self.n_bytes is None else self.n_bytes + self.uncertainty_bytes - self.header_bytes


def published_rows(facts: Mapping[str, Any]) -> tuple[PublishedFile, ...]:
    """The published files of a model, the one to prefer first in each quantisation."""
    header = int(facts.get("header_bytes", 0))
    return tuple(_row(row, header) for row in facts.get("published_files", ()))


def row_named(facts: Mapping[str, Any], name: str) -> PublishedFile | None:
    """The first row of a quantisation, or of one publisher as `PUBLISHER/QUANT`; any case."""
    publisher, slash, quant = name.lower().rpartition("/")
    return next(
        (
            row
            for row in published_rows(facts)
            if row.quant.lower() == quant and (not slash or row.publisher.lower() == publisher)
        ),
        None,
    )


def _row(row: Mapping[str, Any], header_bytes: int) -> PublishedFile:
    exact, about = row.get("bytes"), row.get("bytes_approximate")
    n_bytes = exact if exact is not None else about
    return PublishedFile(
        repo=row["repo"],
        file=row["file"],
        quant=row["quant"],
        n_bytes=n_bytes,
        uncertainty_bytes=0 if exact is not None or about is None else int(row["uncertainty"]),
        header_bytes=header_bytes,
        sha256=row.get("sha256"),
        like=row.get("like", row["quant"]),
        changes=tuple(row.get("changes", ())),
        known_by=KnownBy(row.get("types", "assumed")),
        source=row["source"],
    )
