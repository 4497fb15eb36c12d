"""`glmplan inspect` as a person and a script call it."""

import json
import subprocess
import sys
from pathlib import Path

import build_gguf as b
import pytest
from range_server import serving

pytestmark = pytest.mark.e2e
GLMPLAN = Path(sys.executable).with_name("glmplan")


def glmplan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(GLMPLAN), *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "GLM-4.7-Flash-Q4_K_M.gguf"
    path.write_bytes(b.build(b.glm_keys(), b.glm_tensors(), data=False))
    with path.open("r+b") as stream:
        stream.truncate(2**31)
    return path


def test_json_is_one_document_and_nothing_else(model: Path) -> None:
    done = glmplan("inspect", str(model), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "glmplan/inspect/1"
    assert document["attention"]["kind"] == "mla"
    assert document["kv_cache"]["bytes_per_token"]["f16"] == 54_144
    assert document["tensors"] is None
    assert json.loads(glmplan("inspect", str(model), "--json", "--tensors").stdout)["tensors"][0]["bytes"] > 0


def test_a_person_gets_a_table(model: Path) -> None:
    done = glmplan("inspect", str(model), "--tensors")
    assert done.returncode == 0
    assert "routed_experts" in done.stdout
    assert "blk.1.ffn_up_exps.weight" in done.stdout


def test_an_address_is_read_by_ranges(model: Path) -> None:
    with serving(model.read_bytes()[:100_000], size_bytes=2**31) as server:
        done = glmplan("inspect", f"{server.url}/m.gguf", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["bytes_read"] == server.sent_bytes == 2**20
    assert document["file_bytes"] == 2**31


@pytest.mark.parametrize(
    "arguments", [("absent.gguf",), ("hf:org/repo/x.gguf", "--offline"), ("ollama:x", "--offline")]
)
def test_what_is_not_there_is_bad_input(arguments: tuple[str, ...]) -> None:
    done = glmplan("inspect", *arguments, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "InputError"
    assert error["hint"]
    assert "Traceback" not in done.stderr


def test_a_truncated_file_says_how_much_is_missing(model: Path) -> None:
    with model.open("r+b") as stream:
        stream.truncate(10**6)
    done = glmplan("inspect", str(model), "--json")
    facts = json.loads(done.stdout)["error"]["facts"]
    assert done.returncode == 2
    assert facts["have_bytes"] == 10**6
    assert facts["need_bytes"] > 10**8
