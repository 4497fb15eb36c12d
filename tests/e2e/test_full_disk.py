"""A disk that fills up: the file, the room that is left and what to do are said; nothing half, nothing running."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import build_gguf as b
import psutil
import pytest
from console import SCRIPT, Console, wait_until, words_of
from hub_server import COMMIT, hub_serving
from small_disk import SmallDisk, small_disk

from glmplan.engine import EngineKind
from glmplan.launchers.client import look
from glmplan.launchers.stream import stream_completion

pytestmark = pytest.mark.e2e
EMBEDDED = EngineKind.XLLAMACPP
KINDS = [EMBEDDED, pytest.param(EngineKind.LLAMA_SERVER, marks=pytest.mark.compiled)]
REPO: Final = "unsloth/GLM-4.7-Flash-GGUF"
FILE: Final = "GLM-4.7-Flash-Q4_K_M.gguf"
CONTENT: Final = b.build({"general.architecture": "deepseek2"}, [b.TensorSpec("token_embd.weight", b.F32, (64, 4000))])
BRIEFLY: Final = ("--json", "--depth", "0", "--prompt-tokens", "8", "--output-tokens", "2", "--repetitions", "1")


@pytest.fixture
def disk(console: Console) -> Iterator[SmallDisk]:
    """A small disk with all of glmplan's own folders on it."""

    def running() -> list[psutil.Process]:
        return [process for process in console.leftovers() if str(SCRIPT) in words_of(process)]

    with small_disk(console.folder / "disk", running) as made:
        console.environment |= {"GLMPLAN_HOME": str(made.folder / "glmplan"), "HF_HUB_CACHE": str(made.folder / "hub")}
        yield made


def told(said: str, disk: SmallDisk) -> None:
    """What a person must learn: the place, the reason, a number."""
    assert str(disk.folder) in said
    assert "No space left on device" in said or "File too large" in said
    assert "bytes" in said
    assert "Traceback" not in said


def error_of(done: "subprocess.CompletedProcess[str]", disk: SmallDisk) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    told(error["message"], disk)
    assert error["message"] in done.stderr
    assert error["hint"]
    return error


def files(disk: SmallDisk, pattern: str) -> list[Path]:
    return [path for path in disk.seen.rglob(pattern) if path.is_file()]


def engine_of(console: Console, disk: SmallDisk) -> dict[str, Any]:
    """What `status` knows of the one engine; empty without one."""
    done = console.run("status", "--json", prefix=disk.prefix)
    assert done.returncode == 0, done.stderr
    engines: list[dict[str, Any]] = json.loads(done.stdout)["engines"]
    return engines[0] if engines else {}


def wait_until_ready(console: Console, disk: SmallDisk) -> dict[str, Any]:
    wait_until(lambda: engine_of(console, disk).get("state") == "ready", 60, lambda: str(engine_of(console, disk)))
    return engine_of(console, disk)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_started_on_a_full_disk(console: Console, disk: SmallDisk, kind: EngineKind) -> None:
    plan = console.plan(kind)
    disk.leave(0)
    for words in (("run", plan, "--port", str(console.port)), ("bench", plan)):
        for more in ((), ("--detach",)) if words[0] == "run" else ((),):
            done = console.run(*words, *more, "--json", prefix=disk.prefix)
            assert done.returncode == 1, done.stderr
            error_of(done, disk)
            console.wait_for_no_leftovers(1)
    assert files(disk, "*.json") == []
    disk.make_room()
    done = console.run("run", plan, "--port", str(console.port), "--detach", "--json", prefix=disk.prefix)
    assert done.returncode == 0, done.stderr
    assert console.run("stop", prefix=disk.prefix).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_outlives_a_full_disk(console: Console, disk: SmallDisk, kind: EngineKind) -> None:
    words = ("run", console.plan(kind), "--port", str(console.port), "--json")
    child = subprocess.Popen(
        [*disk.prefix, str(SCRIPT), *words],
        env=console.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    started = json.loads(child.stdout.read())  # the report is the last it says there: the first answers are proven
    disk.leave(0)
    target = look(started["url"])
    for _ in range(3):
        assert stream_completion(target, "a b c", n_predict=16, ignore_eos=True).output_tokens > 0
    assert engine_of(console, disk)["pid"] == started["pid"]
    # It dies and cannot be started again, until there is room.
    psutil.Process(started["pid"]).kill()
    assert child.stderr is not None
    wanted, said = "the engine cannot be started again: cannot write", list[str]()
    for line in child.stderr:
        said.append(line)
        if wanted in line:
            break
    assert wanted in said[-1], said
    told(said[-1], disk)
    disk.make_room()
    assert wait_until_ready(console, disk)["pid"] != started["pid"]
    disk.leave(0)
    assert console.run("stop", prefix=disk.prefix).returncode == 0
    child.communicate(timeout=30)
    console.wait_for_no_leftovers(5)


def test_what_was_measured_is_shown_and_never_half_kept(console: Console, disk: SmallDisk) -> None:
    words = ("run", console.plan(EMBEDDED), "--port", str(console.port), "--detach")
    assert console.run(*words, prefix=disk.prefix).returncode == 0
    disk.leave(1000)
    done = console.run("bench", *BRIEFLY, prefix=disk.prefix)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["schema"] == "glmplan/bench/1"
    assert document["record"] is None
    assert document["measurement"]["samples"]
    assert "error: measured, but not kept: cannot write" in done.stderr
    told(done.stderr, disk)
    listed = console.run("bench", "--list", "--json", prefix=disk.prefix)
    assert json.loads(listed.stdout)["records"] == []
    disk.make_room()
    again = console.run("bench", *BRIEFLY, prefix=disk.prefix)
    assert (again.returncode, json.loads(again.stdout)["record"]) == (0, 1), again.stderr
    assert console.run("stop", prefix=disk.prefix).returncode == 0


def test_a_fetch_ends_and_goes_on_when_there_is_room(console: Console, disk: SmallDisk) -> None:
    with hub_serving({f"{REPO}/{FILE}": CONTENT}) as hub:
        console.environment |= {"HF_ENDPOINT": hub.url}
        words = [*disk.prefix, str(SCRIPT), "fetch", f"hf:{REPO}/{FILE}", "--json"]
        hub.pause_s = 0.05
        child = subprocess.Popen(
            words, env=console.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: hub.sent_bytes > 200_000, 30, lambda: f"sent {hub.sent_bytes}")
        disk.leave(0)
        hub.pause_s = 0
        out, err = child.communicate(timeout=60)
        error = error_of(subprocess.CompletedProcess(words, child.returncode, out, err), disk)
        assert (child.returncode, error["type"]) == (1, "FetchError")
        (partial,) = files(disk, "*.incomplete")
        assert partial.stat().st_size > 0
        assert not list(disk.seen.glob("hub/*/snapshots/*/*"))
        disk.make_room()
        done = console.run("fetch", f"hf:{REPO}/{FILE}", "--json", prefix=disk.prefix)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"][0]["resumed_from_bytes"] > 0
    (whole,) = disk.seen.glob(f"hub/*/snapshots/{COMMIT}/{FILE}")
    assert whole.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--on", "gpu:24GiB", "-o"),
        ("export", "script", "PLAN", "-o"),
        ("report", "PLAN", "-o"),
        ("detect", "--record"),
    ],
)
def test_no_half_file_is_left(console: Console, disk: SmallDisk, words: tuple[str, ...]) -> None:
    plan = console.plan(EMBEDDED)
    disk.leave(0)
    target = str(disk.folder / "target")
    done = console.run(*(plan if word == "PLAN" else word for word in words), target, "--json", prefix=disk.prefix)
    assert done.returncode == 2, done.stderr
    told(done.stderr, disk)
    assert [path for path in disk.seen.rglob("*") if "target" in path.name] == []


@pytest.mark.parametrize("words", [
    ("rehearse", "--quant", "q4_K_M", "--n-ctx", "4096", "--engine", EMBEDDED),
    ("tune", "--synthetic", "2", "--n-ctx", "1024", "--budget", "30s"),
])  # fmt: skip
def test_a_model_that_cannot_be_written_is_neither_measured_nor_left(
    console: Console, disk: SmallDisk, words: tuple[str, ...]
) -> None:
    disk.leave(0)
    done = console.run(*words, "--json", prefix=disk.prefix)
    assert done.returncode != 0
    error_of(done, disk)
    assert files(disk, "*.gguf") == []
    assert not any("llama" in " ".join(words_of(process)) for process in console.leftovers())
