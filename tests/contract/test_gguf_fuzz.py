"""Hostile headers, a few thousand at every run: always an answer or a `GgufError` with its offset, quickly and small.

The long run is in tests/bench.
"""

import json
import random
import secrets
import subprocess
import sys
from pathlib import Path

import fuzz_gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glmplan.profiles.gguf_bytes import BufferSource

QUICKLY = settings(max_examples=1000, deadline=2000, suppress_health_check=[HealthCheck.too_slow], derandomize=False)


@QUICKLY
@given(st.randoms(use_true_random=False))
def test_edited_headers_are_answered(rng: random.Random) -> None:
    assert fuzz_gguf.check(fuzz_gguf.case(rng)) in {"accepted", "unsupported", "refused"}


@settings(max_examples=1000, deadline=2000)
@given(st.binary(max_size=400), st.sampled_from([None, 2**45]))
def test_any_bytes_behind_the_magic_are_answered(content: bytes, size_bytes: int | None) -> None:
    source = BufferSource(b"GGUF\x03\x00\x00\x00" + content)
    source.size_bytes = size_bytes
    assert fuzz_gguf.check(source) in {"unsupported", "refused"}


def test_thousands_of_cases_stay_under_two_seconds_and_512_mib_each() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    script = Path(fuzz_gguf.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "4000", str(seed)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["cases"] == 4000
    assert result["accepted"] > 100
    assert result["slowest_ms"] < 1000 * fuzz_gguf.LIMIT_S
    assert result["max_rss_bytes"] < fuzz_gguf.LIMIT_RSS_BYTES


@pytest.mark.parametrize("seed", range(40))
def test_metadata_bombs_cost_little(seed: int) -> None:
    with fuzz_gguf.time_limit(fuzz_gguf.LIMIT_S):
        source = fuzz_gguf.bomb(random.Random(seed))
        assert fuzz_gguf.check(source) in {"refused", "unsupported"}
    assert source.bytes_read <= 65 * 2**20
