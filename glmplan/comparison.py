"""What others would answer for a machine, beside our plan, and the front of context against speed."""

from typing import Final, Literal

from glmplan.estimate import Estimate
from glmplan.noun import noun

COMPARE_SCHEMA: Final = "glmplan/compare/1"
WHAT_IF_SCHEMA: Final = "glmplan/what-if/1"


@noun
class Answer:
    """One tool's answer: `missing_bytes` by device where it does not fit; `where_wrong` says what it overlooks."""

    name: str
    quantization: str
    n_ctx: int
    cache_type: str
    host_expert_bytes: int
    missing_bytes: dict[str, int]
    decode_tokens_per_s: Estimate
    where_wrong: str


@noun
class Claim:
    """What a calculator says the longest context is, and what it takes a token of context for."""

    name: str
    quantization: str
    n_ctx: int
    bytes_per_token: int
    where_wrong: str


@noun
class FrontPoint:
    """No other configuration has both a longer context and a faster decode."""

    n_ctx: int
    decode_tokens_per_s: Estimate
    quantization: str
    cache_type: str


@noun
class Comparison:
    """Our plan, the others' answers, calculators' claims and the front."""

    schema: Literal["glmplan/compare/1"] = COMPARE_SCHEMA
    ours: Answer
    others: tuple[Answer, ...]
    claims: tuple[Claim, ...]
    front: tuple[FrontPoint, ...]


@noun
class Reached:
    """A machine of the catalog that does what is needed, and how; `memory_bytes` of GPUs and host together.

    `also`: other machines of which all of this is true.
    """

    on: str
    gpu_bytes: int
    memory_bytes: int
    quantization: str
    n_ctx: int
    cache_type: str
    host_expert_bytes: int
    decode_tokens_per_s: Estimate
    prefill_tokens_per_s: Estimate
    also: tuple[str, ...] = ()


@noun
class WhatIf:
    """Machines that reach a need, cheapest memory first."""

    schema: Literal["glmplan/what-if/1"] = WHAT_IF_SCHEMA
    need: str
    machines: tuple[Reached, ...]
    n_looked_at: int
