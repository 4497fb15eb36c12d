"""What is written stays ours: nothing others can write, nothing secret where others or a reader of reports see it."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
import typer
from console import Console

from glmplan.cli import application
from glmplan.engine import EngineKind
from glmplan.launchers.export.formats import FORMATS

app = application()

pytestmark = pytest.mark.e2e
KINDS = [EngineKind.XLLAMACPP, pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled)]
EVERYTHING_ALLOWED: Final = ("sh", "-c", 'umask 000; exec "$0" "$@"')
TOKEN: Final = "hf_" + "s" * 34
BRIEFLY: Final = ("--depth", "0", "--prompt-tokens", "8", "--output-tokens", "2", "--repetitions", "1")


class Transcript:
    """Commands under a umask that forbids nothing, and all they said."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.said: list[str] = []

    def __call__(self, *words: str, code: int | None = 0) -> str:
        done = self._console.run(*words, prefix=EVERYTHING_ALLOWED)
        assert code is None or done.returncode == code, f"{words}: {done.stderr}"
        self.said.append(done.stdout + done.stderr)
        return done.stdout


def written(console: Console) -> Iterator[Path]:
    """Every file and folder below this test's homes and its working folder."""
    yield from console.folder.rglob("*")
    for name in ("HOME", "GLMPLAN_HOME"):
        yield from Path(os.environ[name]).rglob("*")


def assert_only_ours(console: Console) -> None:
    for path in written(console):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            assert mode & (stat.S_IWGRP | stat.S_IWOTH) == 0, f"{path} is {stat.filemode(mode)}"


def assert_secret(secret: str, console: Console, *, allowed: Path) -> None:
    """In no file but the one for it."""
    for path in written(console):
        if path.is_file() and path not in {allowed, console.model}:
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_open_and_no_key_gets_out(console: Console, kind: EngineKind) -> None:
    glmplan = Transcript(console)
    plan = console.plan(kind)
    shown = glmplan("run", plan, "--host", "0.0.0.0", "--port", str(console.port), "--detach", "--json")
    (key_file,) = (Path(os.environ["GLMPLAN_HOME"]) / "state" / "runs").glob("*.key")
    key = key_file.read_text(encoding="utf-8").strip()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    (start,) = glmplan.said
    assert start.count(key) == 1  # shown once: to the person who started it
    glmplan.said.clear()

    engine = psutil.Process(json.loads(shown)["pid"])
    assert key not in " ".join(engine.cmdline())
    url = f"http://127.0.0.1:{console.port}/v1/completions"
    assert httpx.post(url, json={"prompt": "a", "max_tokens": 1}, trust_env=False).status_code == 401

    console.environment |= {"GLMPLAN_API_KEY": key, "HF_TOKEN": TOKEN}
    for words in (
        ("status", "--json"), ("logs",), ("bench", "--json", *BRIEFLY), ("bench", "--list", "--json"),
        ("detect", "--json"), ("detect", "--record", "tape"), ("plan", "--on", "gpu:24GiB", "-o", "other.plan.json"),
        ("report", plan, "-o", "report.html"),
    ):  # fmt: skip
        glmplan(*words)
    glmplan("doctor", "--json", code=None)  # 1 where something of this machine is wrong
    assert_only_ours(console)
    for secret in (key, TOKEN):
        assert_secret(secret, console, allowed=key_file)
        assert secret not in "".join(glmplan.said)
    glmplan("stop")
    assert not key_file.exists()


@pytest.fixture
def nothing_masked() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("nothing_masked")
@pytest.mark.parametrize("name", FORMATS)
def test_an_export_that_leads_to_a_key_is_for_its_owner_only(name: str, console: Console) -> None:
    key_file = console.folder / "key"
    key_file.write_text("sk-very-secret\n")
    key_file.chmod(0o600)
    plan = Path(console.folder, "plan.json")
    command = typer.main.get_command(app)
    command(["plan", "--on", "h100-sxm", "-o", str(plan)], standalone_mode=False)
    target = console.folder / "exported"
    words = ["export", name, str(plan), "--model-file", "/models/a.gguf", "-o", str(target)]
    for more, others in ((["--api-key-file", str(key_file)], 0o077), ([], 0o022)):
        target.unlink(missing_ok=True)
        command([*words, *more], standalone_mode=False)
        assert stat.S_IMODE(target.stat().st_mode) & others == 0
        assert "sk-very-secret" not in target.read_text(encoding="utf-8")
