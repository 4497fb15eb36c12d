"""What the user wants to do with the model, and what "better" means to them."""

from enum import StrEnum

from glmplan.noun import noun


class Objective(StrEnum):
    """What a search ranks by."""

    BALANCED = "balanced"
    DECODE_SPEED = "decode_speed"
    PREFILL_SPEED = "prefill_speed"
    CONTEXT = "context"
    QUALITY = "quality"


@noun
class Workload:
    """Tokens per request, requests at once, and the objective; speeds are judged at `depth_tokens`."""

    prompt_tokens: int
    output_tokens: int
    n_parallel: int
    objective: Objective = Objective.BALANCED
    depth_tokens: int | None = None
