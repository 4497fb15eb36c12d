"""Our header reader against llama.cpp's own, over thousands of damaged headers: what it refuses, we refuse."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import llama_reader
import pytest
from oracle_samples import seed_of_run

# Deliberately stricter: names a terminal or a JSON document cannot carry, and lengths beyond the specification.
STRICTER = re.compile(r"is not UTF-8|has \d+ bytes, 1 to \d+ are allowed|\Abig-endian\Z")


def libggml_base() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None, "the compiled engine is not installed here"
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.joinpath("lib").glob("libggml-base.*"))
    assert found, f"no libggml-base beside {spec.origin}"
    return found[0]


@pytest.mark.compiled
def test_we_refuse_what_llama_cpp_refuses() -> None:
    seed = seed_of_run()
    script = Path(llama_reader.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(libggml_base()), "10000", str(seed)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["only_they_refuse"] == {}
    assert [reason for reason in result["only_we_refuse"] if not STRICTER.search(reason)] == []
    assert result["agreed"]["taken"] > 500
