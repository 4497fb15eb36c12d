"""Arithmetic of measurements: quantiles, summaries, prompts of a wanted length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.benchmark import BenchSettings
from glmplan.errors import BenchError
from glmplan.estimate import Basis
from glmplan.launchers.bench import Point, measure, sample_of
from glmplan.launchers.bench_report import Subject, quantile, report, summarise
from glmplan.launchers.client import ApiKey, Target
from glmplan.launchers.prompts import token_ids, words
from glmplan.launchers.stream import Completion
from glmplan.measurement import SpeedSample


def sample(prefill: float, decode: float, ttft_ms: float, depth: int = 0) -> SpeedSample:
    return SpeedSample(
        prompt_tokens=100,
        output_tokens=10,
        ttft_ms=ttft_ms,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        tpot_ms=1000 / decode,
        depth_tokens=depth,
        server_timed=True,
    )


def test_quantiles_interpolate_between_ranks() -> None:
    assert quantile([1.0], 0.95) == 1.0
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([0.0, 10.0, 20.0], 0.95) == pytest.approx(19.0)


def test_a_summary_is_measured_and_spans_its_samples() -> None:
    summary = summarise([sample(100, 10, 5), sample(120, 12, 7), sample(110, 8, 6)], 4096)
    assert (summary.prefill_tokens_per_s.value, summary.prefill_tokens_per_s.basis) == (110, Basis.MEASURED)
    assert (summary.decode_tokens_per_s.low, summary.decode_tokens_per_s.high) == (8, 12)
    assert summary.ttft_ms.p50 == 6
    assert (summary.depth_tokens, summary.samples) == (4096, 3)


def test_a_report_keeps_samples_of_each_depth_apart() -> None:
    settings = BenchSettings(depths=(0, 1000), repetitions=2)
    samples = [sample(100, 10, 5), sample(102, 10, 5), sample(50, 5, 9, 990), sample(52, 5, 9, 990)]
    subject = Subject(
        engine="xllamacpp", engine_version="1", model="m", quantization="q", synthetic=True, machine_fingerprint="f"
    )
    points = [Point(depth_tokens=d, n_streams=1, samples=tuple(samples[i : i + 2])) for d, i in ((0, 0), (1000, 2))]
    made = report("http://x", settings, points, subject)
    assert [row.prefill_tokens_per_s.value for row in made.summary] == [101, 51]
    assert made.measurement.samples == tuple(samples)


def test_speeds_are_the_engines_own_where_it_tells_them() -> None:
    own = Completion(
        text="", output_tokens=11, ttft_ms=50, tpot_ms=10, prompt_tokens=100, prefill_tokens_per_s=2500,
        decode_tokens_per_s=110,
    )  # fmt: skip
    told = sample_of(own, depth_tokens=0, prompt_tokens=100)
    assert (told.prefill_tokens_per_s, told.decode_tokens_per_s, told.server_timed) == (2500, 110, True)
    clocked = sample_of(
        Completion(text="", output_tokens=11, ttft_ms=50, tpot_ms=10), depth_tokens=0, prompt_tokens=100
    )
    assert (clocked.prefill_tokens_per_s, clocked.decode_tokens_per_s) == (2000, 100)
    assert not clocked.server_timed


def test_too_deep_is_refused_before_anything_is_sent() -> None:
    target = Target(url="http://127.0.0.1:1", model="m", timings=True, n_ctx=1000, n_vocab=100)
    settings = BenchSettings(depths=(0, 900), prompt_tokens=90, output_tokens=11)
    with pytest.raises(BenchError, match="depth 900 with 1 streams takes 1001 tokens, the engine's context is 1000"):
        measure(target, settings, on_sample=lambda _: None)


@given(n=st.integers(0, 500), n_vocab=st.integers(2, 200_000), seed=st.integers(0, 1000))
def test_token_ids_are_ordinary_tokens_in_the_wanted_number(n: int, n_vocab: int, seed: int) -> None:
    ids = token_ids(n, n_vocab, seed=seed)
    assert len(ids) == n
    assert all(0 <= number < n_vocab for number in ids)
    assert ids == token_ids(n, n_vocab, seed=seed)


def test_token_ids_vary_and_seeds_differ_from_the_first_token() -> None:
    assert len(set(token_ids(1000, 154_880, seed=3))) > 900
    assert token_ids(1, 154_880, seed=3) != token_ids(1, 154_880, seed=4)


def test_words_come_close_to_the_wanted_length() -> None:
    def count(text: str) -> int:
        return sum(1 + len(word) // 4 for word in text.split())

    text, tokens = words(1000, count, seed=5)
    assert tokens == count(text)
    assert 900 <= tokens <= 1000


def test_a_key_does_not_show_itself() -> None:
    target = Target(url="http://x", model="m", timings=True, api_key=ApiKey("secret"))
    assert "secret" not in repr(target)
