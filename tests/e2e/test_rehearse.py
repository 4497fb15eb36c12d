"""glmplan rehearse with a real engine on cuts of the real model's shape; and what it leaves behind: nothing."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from console import Console, Foreground, wait_until, words_of

from glmplan.paths import cache_folder, data_folder

pytestmark = pytest.mark.e2e
# Room for a busy machine; a quiet one is done with all its rounds long before.
BUDGET = "240"
# The quantisation with the smallest cuts, and a context whose quarter is soon reached.
WORDS = ("rehearse", "--quant", "q4_K_M", "--n-ctx", "4096", "--engine", "xllamacpp")


def left() -> list[Path]:
    folder = cache_folder() / "rehearse"
    return sorted(folder.rglob("*")) if folder.exists() else []


def engines(console: Console) -> list[psutil.Process]:
    return [process for process in console.leftovers() if "xllamacpp_server" in " ".join(words_of(process))]


def test_a_rehearsal_says_what_it_takes_and_how_fast_it_is_and_plans_rest_on_it(console: Console) -> None:
    done = console.run(*WORDS, "--budget", BUDGET, "--json", timeout_s=300)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["schema"] == "glmplan/rehearsal/1"
    (host,) = document["allocation"]["devices"]
    # 47 layers, K only: 4096 tokens x 576 values of 2 bytes.
    assert abs(host["kv_cache_bytes"] - 47 * 4096 * 1152) < 47 * 64 * 1024
    assert document["allocation"]["basis"] == "calibrated"
    assert [len(cut["cut"]["layers"]) for cut in document["cuts"]][:2] == [1, 2]

    for phase in ("decode", "prefill"):
        parts = {c["part"]: c for c in document[phase]["coefficients"] if c["in_full_model"]}
        assert set(parts) == {"fixed", "layer", "context"}
        assert parts["layer"]["in_full_model"] == pytest.approx(46)
        assert parts["context"]["in_full_model"] == 47
    for row in document["speeds"]:
        for name in ("decode_tokens_per_s", "prefill_tokens_per_s"):
            estimate = row[name]
            assert 0 < estimate["low"] < estimate["value"] < estimate["high"]
            assert estimate["basis"] == "calibrated"
    assert document["depth_tokens"] in [row["depth_tokens"] for row in document["speeds"]]

    taken = document["footprint"]
    assert taken["peak_resident_bytes"] + taken["peak_disk_bytes"] < 4 * 2**30
    assert len(taken["files_written"]) == 3
    assert taken["files_left"] == []
    assert left() == []
    assert console.leftovers() == []

    (kept,) = (data_folder() / "rehearsals").iterdir()
    assert len(kept.read_text().splitlines()) == 1
    plan = json.loads(console.run("plan", "--engine", "xllamacpp", "--json").stdout)
    assert any(f"the rehearsal of {document['created_at'][:10]}" in reason for reason in plan["reasons"])
    assert plan["speed"]["decode_tokens_per_s"]["basis"] == "calibrated"
    elsewhere = json.loads(console.run("plan", "--on", "rtx-4090", "--json").stdout)
    assert not any("rehearsal" in reason for reason in elsewhere["reasons"])


def test_the_first_run_without_a_plan_rehearses_and_the_second_does_not(console: Console) -> None:
    """Nobody answers for the weights, so that both end after it; what was measured stays."""
    console.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    words = ("run", "--fetch", "--engine", "xllamacpp", "--port", "0")
    told = "first launch on this machine: the plan is rehearsed"
    left_out = console.run(*words, "--no-rehearse")
    assert left_out.returncode != 0
    assert told not in left_out.stderr
    assert not (data_folder() / "rehearsals").exists()

    first = console.run(*words, timeout_s=300)
    assert first.returncode == left_out.returncode
    assert told in first.stderr
    assert "not rehearsed" not in first.stderr
    assert "Traceback" not in first.stderr
    (kept,) = (data_folder() / "rehearsals").iterdir()
    assert len(kept.read_text().splitlines()) == 1

    again = console.run(*words)
    assert again.returncode == left_out.returncode
    assert told not in again.stderr
    assert len(kept.read_text().splitlines()) == 1
    assert left() == []
    assert console.leftovers() == []


def started(console: Console, *more: str) -> Foreground:
    """A rehearsal whose first engine runs."""
    running = console.start(*WORDS, *more)
    wait_until(lambda: bool(engines(console)) or running.popen.poll() is not None, 60, lambda: running.stderr)
    assert running.popen.poll() is None, running.stderr
    return running


def test_ctrl_c_leaves_neither_files_nor_engines(console: Console) -> None:
    running = started(console)
    running.popen.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    console.wait_for_no_leftovers(10)
    assert left() == []


def test_an_engine_that_is_killed_is_an_error_with_its_signal(console: Console) -> None:
    running = started(console, "--json")
    os.kill(engines(console)[0].pid, signal.SIGKILL)
    assert running.wait(60) == 4
    error = json.loads(running.stdout)["error"]
    assert error["type"] == "EngineExited"
    assert "9" in error["message"]
    console.wait_for_no_leftovers(10)
    assert left() == []


def test_what_a_killed_rehearsal_leaves_is_removed_by_the_next(console: Console) -> None:
    running = started(console)
    running.popen.kill()
    running.wait()
    console.wait_for_no_leftovers(10)
    assert left()
    again = started(console)
    fresh = [path.stat().st_ctime for path in left()]
    again.popen.send_signal(signal.SIGTERM)
    again.wait(60)
    assert fresh
    assert left() == []


def test_two_rehearsals_at_once_would_disturb_each_other(console: Console) -> None:
    running = started(console)
    second = console.run(*WORDS, "--json")
    assert second.returncode == 1
    assert "another rehearsal" in json.loads(second.stdout)["error"]["message"]
    running.popen.send_signal(signal.SIGINT)
    running.wait(60)


def test_a_plan_of_another_machine_is_not_rehearsed(console: Console) -> None:
    plan = console.folder / "elsewhere.json"
    assert console.run("plan", "--on", "cpu:64GiB", "-o", str(plan)).returncode == 0
    done = console.run("rehearse", str(plan), "--json")
    assert done.returncode in {4, 5}
    assert json.loads(done.stdout)["error"]["type"] in {"StalePlan", "EngineNotFound"}
