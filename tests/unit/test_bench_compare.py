"""Two records side by side: pairing, spread, what differs; and finding records by number, time and file."""

import dataclasses
import random
from pathlib import Path

import pytest
from launch_plans import placement_of

from glmplan.engine import EngineKind
from glmplan.errors import InputError
from glmplan.jsonio import dumps
from glmplan.launchers import history
from glmplan.launchers.bench_compare import compare, points_of, spelled
from glmplan.measurement import Measurement, SpeedSample


def sample(decode: float, depth: int = 0, *, n_streams: int = 1, prefill: float = 100.0) -> SpeedSample:
    return SpeedSample(
        prompt_tokens=64, output_tokens=8, ttft_ms=1.0, prefill_tokens_per_s=prefill, decode_tokens_per_s=decode,
        tpot_ms=1000 / decode, depth_tokens=depth, server_timed=True, n_streams=n_streams,
        aggregate_prefill_tokens_per_s=prefill, aggregate_decode_tokens_per_s=decode * n_streams,
    )  # fmt: skip


def record(*samples: SpeedSample, at: str = "2026-01-01T00:00:00Z", n_ubatch: int = 128) -> Measurement:
    return Measurement(
        created_at=at, glmplan_version="0", engine="llama-server", engine_version="1", model="m", quantization="q",
        synthetic=True, machine_fingerprint="f" * 16, samples=samples,
        placement=placement_of(EngineKind.LLAMA_SERVER, n_ubatch=n_ubatch),
    )  # fmt: skip


def test_points_are_found_again_in_a_record() -> None:
    flat = [sample(10), sample(11), sample(5, 250), sample(5, 256), sample(4, n_streams=2), sample(4, n_streams=2)]
    found = points_of(flat)
    assert [(point.depth_tokens, point.n_streams, len(point.samples)) for point in found] == [
        (0, 1, 2), (256, 1, 2), (0, 2, 2),
    ]  # fmt: skip
    assert spelled(found[2]) == "depth 0, 2 streams"


def test_a_difference_beyond_both_spreads_is_told_from_one_within() -> None:
    a = record(*(sample(value) for value in (100, 101, 102)))
    faster = compare("1", a, "2", record(*(sample(value) for value in (110, 111, 112)), n_ubatch=512))
    assert faster.differences == ("n_ubatch: 128 and 512",)
    prefill, decode = faster.speeds
    assert (decode.metric, decode.exceeds_spread) == ("decode_tokens_per_s", True)
    assert decode.ratio == pytest.approx(111 / 101)
    assert decode.spread_ratio == pytest.approx(4 / 101)
    assert (prefill.ratio, prefill.exceeds_spread) == (1.0, False)
    same = compare("1", a, "3", record(*(sample(value) for value in (101, 103, 104))))
    assert same.speeds[1].exceeds_spread is False


def test_without_three_samples_the_spread_is_not_known() -> None:
    found = compare("1", record(sample(100), sample(101)), "2", record(*[sample(200)] * 3))
    assert (found.speeds[1].spread_ratio, found.speeds[1].exceeds_spread) == (None, None)


def test_streams_are_compared_by_what_they_reach_together() -> None:
    one = record(*[sample(10, n_streams=2)] * 6)
    found = compare("1", one, "2", record(*[sample(15, n_streams=2)] * 6))
    assert (found.speeds[1].a.value, found.speeds[1].b.value, found.speeds[1].exceeds_spread) == (20, 30, True)


def test_points_of_one_record_alone_are_named() -> None:
    found = compare("1", record(sample(10), sample(5, 4096)), "2", record(sample(10), sample(2, 32768)))
    assert (found.only_in_a, found.only_in_b) == (("depth 4096",), ("depth 32768",))


def test_noise_seldom_exceeds_the_spread() -> None:
    """Three samples each of the same thing: 1.4 % differ by more than both ranges (normal noise)."""
    draw = random.Random(5)
    exceeded = 0
    for _ in range(2000):
        one, other = (record(*(sample(draw.gauss(100, 3)) for _ in range(3))) for _ in range(2))
        exceeded += bool(compare("1", one, "2", other).speeds[1].exceeds_spread)
    assert exceeded < 0.03 * 2000


def test_records_are_found_by_number_time_place_and_file(tmp_path: Path) -> None:
    first, second = record(sample(1)), record(sample(2), at="2026-01-02T03:04:05Z")
    other = dataclasses.replace(first, machine_fingerprint="0" * 16, created_at="2025-12-31T00:00:00Z")
    for each in (first, second, other):
        history.append(each)
    assert [entry.measurement for entry in history.records()] == [other, first, second]
    assert history.number_of(second) == 3
    assert history.choose("2") == first
    assert history.choose("2026-01-02") == second
    assert (history.choose("last"), history.choose("before")) == (second, first)
    path = tmp_path / "record.json"
    path.write_text(dumps({"schema": "glmplan/bench/1", "measurement": first}))
    assert history.choose(str(path)) == first
    for name in ("9", "2026", "nothing"):
        with pytest.raises(InputError, match=r"records 2, 3|no record and no file"):
            history.choose(name)


def test_a_line_that_is_no_record_is_named() -> None:
    path = history.append(record(sample(1)))
    with path.open("a") as stream:
        stream.write("{broken\n")
    with pytest.raises(InputError, match=r"f{16}\.jsonl:2"):
        history.records()
