"""What a benchmark is asked for and what it answers, by depth and by number of streams."""

from typing import Final, Literal

from glmplan.estimate import Basis, Estimate
from glmplan.measurement import Measurement
from glmplan.noun import noun

BENCH_SCHEMA: Final = "glmplan/bench/1"
COMPARE_SCHEMA: Final = "glmplan/bench-compare/1"
LIST_SCHEMA: Final = "glmplan/bench-list/1"


@noun
class BenchSettings:
    """What to measure: every depth with every number of streams, `repetitions` times, after one warm-up request.

    With `skip_what_does_not_fit` a point that the context or `max_time_s` has no room for is left out and named;
    without it the context refuses the whole benchmark.
    """

    depths: tuple[int, ...] = (0,)
    streams: tuple[int, ...] = (1,)
    prompt_tokens: int = 512
    output_tokens: int = 64
    repetitions: int = 3
    max_time_s: float | None = None
    skip_what_does_not_fit: bool = False

    def needed_tokens(self, depth: int, n_streams: int) -> int:
        """Context that one point takes, all streams together."""
        return n_streams * (depth + self.prompt_tokens + self.output_tokens)


@noun
class LeftOut:
    """A point that was not measured, and why."""

    depth_tokens: int
    n_streams: int
    why: str


@noun
class Quantiles:
    """Median and 95th percentile of the samples."""

    p50: float
    p95: float


@noun
class PointSummary:
    """The samples of one depth and number of streams; ranges are the lowest and highest sample.

    The first two rates are those of one stream, the aggregate ones of all streams together. Energy is that of one
    token of prompt and one of output, all parts the meter covers; None without a meter.
    """

    depth_tokens: int
    n_streams: int
    samples: int
    prefill_tokens_per_s: Estimate
    decode_tokens_per_s: Estimate
    aggregate_prefill_tokens_per_s: Estimate
    aggregate_decode_tokens_per_s: Estimate
    ttft_ms: Quantiles
    tpot_ms: Quantiles
    joules_per_prompt_token: Estimate | None = None
    joules_per_output_token: Estimate | None = None


@noun
class HostedPrice:
    """What a provider asks per million tokens, in `currency`, with who says so."""

    name: str
    currency: str
    input_per_million: float
    output_per_million: float
    source: str


@noun
class PointCost:
    """Electricity of a million tokens at one point; None where it is not known."""

    depth_tokens: int
    n_streams: int
    input_per_million: Estimate | None
    output_per_million: Estimate | None


@noun
class Cost:
    """The same tokens at a hosted price and as electricity here.

    `prompt_tokens` and `output_tokens` are those this benchmark timed; `electricity` is their price in the currency of
    `hosted`, None with the reason `why`. Tokens already in the context are counted once, by nobody.
    """

    hosted: HostedPrice
    prompt_tokens: int
    output_tokens: int
    hosted_total: float
    kwh_price: float | None
    electricity: Estimate | None
    basis: Basis | None
    why: str | None
    points: tuple[PointCost, ...]


@noun
class BenchReport:
    """A measurement and its summary: what `glmplan bench --json` prints; `record` is its number in the history."""

    schema: Literal["glmplan/bench/1"] = BENCH_SCHEMA
    url: str
    settings: BenchSettings
    summary: tuple[PointSummary, ...]
    left_out: tuple[LeftOut, ...]
    measurement: Measurement
    cost: Cost | None = None
    record: int | None = None


@noun
class ComparedRecord:
    """One of the two records of a comparison."""

    name: str
    created_at: str
    engine: str
    engine_version: str | None
    file: str
    synthetic: bool
    machine_fingerprint: str


@noun
class ComparedSpeed:
    """One speed of both records at one point.

    `ratio` is b over a. `spread_ratio` is what both ranges are wide together, as a share of a; the difference
    `exceeds_spread` when it is larger than that. None where a record has fewer than three samples.
    """

    depth_tokens: int
    n_streams: int
    metric: str
    a: Estimate
    b: Estimate
    ratio: float
    spread_ratio: float | None
    exceeds_spread: bool | None


@noun
class BenchComparison:
    """Two records side by side: what differs between them, and every point that both have."""

    schema: Literal["glmplan/bench-compare/1"] = COMPARE_SCHEMA
    a: ComparedRecord
    b: ComparedRecord
    differences: tuple[str, ...]
    speeds: tuple[ComparedSpeed, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]


@noun
class ListedRecord:
    """One line of the history; `points` are depth and streams of what it measured."""

    number: int
    created_at: str
    origin: str
    engine: str
    engine_version: str | None
    model: str
    quantization: str
    synthetic: bool
    machine_fingerprint: str
    points: tuple[str, ...]


@noun
class RecordList:
    """All stored measurements, oldest first."""

    schema: Literal["glmplan/bench-list/1"] = LIST_SCHEMA
    folder: str
    records: tuple[ListedRecord, ...]
