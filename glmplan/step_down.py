"""What is given up, one step at a time, when a plan does not fit after all."""

from enum import StrEnum

from glmplan.noun import noun


class Knob(StrEnum):
    """What a step may turn down, in the order in which it is given up."""

    PROMPT_CACHE = "cache_ram_bytes"
    EXPERTS = "experts_in_main_memory_bytes"
    GPU_LAYERS = "n_gpu_layers"
    UBATCH = "n_ubatch"
    FLASH_ATTENTION = "flash_attn"
    CACHE_TYPE = "cache_type"
    CONTEXT = "n_ctx"


@noun
class Change:
    """One knob before and after."""

    knob: Knob
    before: int | str
    after: int | str


@noun
class StepDown:
    """One try with less, after memory ran out on `device` (`gpu0`, ... or `host`); bytes are the ledger's there.

    `because` is what the engine said. Both decode speeds are forecasts at the depth that the smaller plan is judged by.
    """

    number: int
    device: str
    because: str
    needed_bytes_before: int
    needed_bytes_after: int
    decode_tokens_per_s_before: float
    decode_tokens_per_s_after: float
    changes: tuple[Change, ...]
