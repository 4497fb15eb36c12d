"""200,000 hostile headers in a process of its own: `pytest -m bench tests/bench/test_fuzz_gguf.py -s` (two minutes)."""

import json
import secrets
import subprocess
import sys
from pathlib import Path

import fuzz_gguf
import pytest

pytestmark = pytest.mark.bench
CASES = 200_000


def test_200_000_hostile_headers() -> None:
    seed = secrets.randbits(32)
    print(f"\nseed {seed}")
    script = Path(fuzz_gguf.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(CASES), str(seed)], capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name, value in result.items():
        print(f"{name:15} {value:>15,}")
    assert result["cases"] == CASES
    assert result["slowest_ms"] < 1000 * fuzz_gguf.LIMIT_S
    assert result["max_rss_bytes"] < fuzz_gguf.LIMIT_RSS_BYTES
