"""How deep a launch is proven, and how long that may take."""

from enum import StrEnum
from typing import Final

from glmplan.noun import noun

DEFAULT_PROOF_SECONDS: Final = 60.0


class ProofKind(StrEnum):
    """How deep a launch is proven: as deep as the time allows, the whole context, a short prompt, not at all."""

    AUTO = "auto"
    FULL = "full"
    SHORT = "short"
    NONE = "none"


@noun
class ProofSettings:
    """How deep to prove, how long `auto` may fill, and whether a person is told on standard output."""

    kind: ProofKind = ProofKind.AUTO
    limit_s: float = DEFAULT_PROOF_SECONDS
    speak: bool = True
