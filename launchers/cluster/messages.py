"""What the front and the replicas say to each other; plain values that Ray can carry between processes."""

from glmplan.noun import noun


@noun
class Request:
    """A client's request; `target` is path and query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@noun
class Head:
    """The beginning of an engine's answer."""

    status: int
    headers: tuple[tuple[str, str], ...]


class EngineLost(Exception):
    """The engine of a replica broke off; another replica may be asked if nothing has been sent to the client."""
