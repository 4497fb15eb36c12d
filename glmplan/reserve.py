"""Memory that an engine build turned out to need beside its ledger, learned where it ran out."""

from glmplan.noun import noun


@noun
class Reserve:
    """Bytes to keep free on one device under one engine build; `device` is a GPU's UUID or name, or `host`."""

    engine: str
    build: str | None
    device: str
    reserve_bytes: int
    learned_at: str
    because: str
