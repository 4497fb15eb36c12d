"""Metadata of a model by key, with the types a loader expects; a wrong type is the file's fault, with its offset."""

from collections.abc import Mapping
from typing import Final

from glmplan.errors import GgufError
from glmplan.profiles.gguf_header import ArraySample, MetadataValue, Scalar

_MOST: Final = 2**31 - 1


class ModelKeys:
    """The keys of one model; a leading dot stands for `<architecture>.`."""

    def __init__(self, file: str, metadata: Mapping[str, MetadataValue]) -> None:
        """Look up in `metadata`; `file` is named in messages."""
        self.file = file
        self._metadata = metadata
        self.architecture = self.text("general.architecture")

    def __len__(self) -> int:
        return len(self._metadata)

    def full(self, key: str) -> str:
        """The key as it stands in the file."""
        return f"{self.architecture}{key}" if key.startswith(".") else key

    def names(self, prefix: str) -> tuple[str, ...]:
        """Keys that begin with `prefix`."""
        start = self.full(prefix)
        return tuple(key for key in self._metadata if key.startswith(start))

    def text(self, key: str) -> str | None:
        """A text value.

        Raises:
            GgufError: there, but not a text.
        """
        found = self._metadata.get(self.full(key))
        if found is None:
            return None
        if not isinstance(found.value, str):
            raise self._error(key, found, "a text")
        return found.value

    def flag(self, key: str) -> bool:
        """A true-or-false value, False when absent.

        Raises:
            GgufError: there, but of another type.
        """
        found = self._metadata.get(self.full(key))
        if found is None:
            return False
        if not isinstance(found.value, bool):
            raise self._error(key, found, "true or false")
        return found.value

    def whole(self, key: str) -> int | None:
        """A whole number from 0 to 2^31-1; of an array by layer, the largest.

        Raises:
            GgufError: there, but of another type or range.
        """
        numbers = self.by_layer(key)
        return max(numbers, default=None) if numbers is not None else None

    def by_layer(self, key: str) -> tuple[int, ...] | None:
        """A whole number for all layers (one element), or one for each layer.

        Raises:
            GgufError: there, but of another type or range, or longer than 512 layers.
        """
        found = self._metadata.get(self.full(key))
        if found is None:
            return None
        if not isinstance(found.value, ArraySample):
            return (self._whole_number(key, found, found.value),)
        if not found.value.complete:
            raise self._error(key, found, "an array of at most 512 layers")
        return tuple(self._whole_number(key, found, value) for value in found.value.first)

    def length(self, key: str) -> int | None:
        """Number of elements of an array."""
        found = self._metadata.get(self.full(key))
        return found.value.count if found is not None and isinstance(found.value, ArraySample) else None

    def _whole_number(self, key: str, found: MetadataValue, value: Scalar) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise self._error(key, found, f"a whole number from 0 to {_MOST}")
        return value

    def _error(self, key: str, found: MetadataValue, expected: str) -> GgufError:
        value = found.value
        shown = f"an array of {value.count} {value.type.name}" if isinstance(value, ArraySample) else repr(value)[:60]
        name = self.full(key)
        return GgufError(
            f"{self.file}: key {name!r} is {shown}, expected {expected} (at offset {found.offset})",
            hint="the file is damaged or was written by a broken converter: download it again",
            facts={"file": self.file, "offset": found.offset, "key": name},
        )
