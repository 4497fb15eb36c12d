"""Large nouns as keys of a cache: the very object counts, not its thousand fields."""

from typing import Generic, TypeVar

Noun = TypeVar("Noun")


class Same(Generic[Noun]):
    """Equal only where `value` is the same object; holds it, so that no other can take its place."""

    __slots__ = ("value",)

    def __init__(self, value: Noun) -> None:
        """Wrap `value`."""
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.__hash__() == id(self.value)

    def __hash__(self) -> int:
        return id(self.value)
