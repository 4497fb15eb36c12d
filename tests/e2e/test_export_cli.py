"""`glmplan export` as a person types it."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from console import SCRIPT
from export_plans import full_gpu, hybrid

from glmplan import jsonio
from glmplan.plan import Plan

pytestmark = pytest.mark.e2e


def glmplan(*words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(SCRIPT), *words],
        env=dict(os.environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plan_file(folder: Path, plan: Plan) -> str:
    path = folder / "plan.json"
    path.write_text(jsonio.dumps(plan), encoding="utf-8")
    return str(path)


def test_the_list_names_every_format_in_text_and_in_json() -> None:
    text = glmplan("export", "--list")
    document = json.loads(glmplan("export", "--list", "--json").stdout)
    assert document["schema"] == "glmplan/export-formats/1"
    names = [row["format"] for row in document["formats"]]
    assert {"script", "modelfile", "ollama-env", "compose", "vllm", "claude-code"} <= set(names)
    assert [line.split()[0] for line in text.stdout.splitlines()] == names


def test_without_a_file_the_export_goes_to_standard_output_and_warnings_do_not(tmp_path: Path) -> None:
    done = glmplan("export", "modelfile", plan_file(tmp_path, hybrid()))
    assert done.returncode == 0
    assert "FROM /models/GLM-4.7-Flash-Q4_K_M.gguf\n" in done.stdout
    assert "warning: experts of 12 layers in main memory" in done.stderr


def test_a_script_is_written_with_its_mode_and_checked(tmp_path: Path) -> None:
    target = tmp_path / "out" / "launch.sh"
    done = glmplan("export", "script", plan_file(tmp_path, full_gpu()), "-o", str(target), "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert "checked by sh -n" in done.stderr


def test_a_plan_is_read_from_standard_input() -> None:
    done = glmplan("export", "modelfile", "-", stdin=jsonio.dumps(full_gpu()))
    assert done.returncode == 0, done.stderr
    assert "num_ctx 65536" in done.stdout


def test_without_a_plan_this_machine_is_planned_for() -> None:
    done = glmplan("export", "modelfile")
    assert done.returncode == 0, done.stderr
    assert "FROM glm-4.7-flash:" in done.stdout


def test_the_model_file_can_be_named_and_its_size_is_taken(tmp_path: Path) -> None:
    model = tmp_path / "my model.gguf"
    model.write_bytes(b"GGUF" + bytes(60))
    plan = full_gpu()
    done = glmplan("export", "script", plan_file(tmp_path, plan), "--model-file", str(model))
    assert f"model='{model}'" in done.stdout
    assert f"min_bytes={plan.model.file_bytes}" in done.stdout
    done = glmplan("export", "script", "--model-file", str(model))
    assert "min_bytes=64\nmax_bytes=64\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "no format was given"),
        (("modelfil",), 2, "did you mean modelfile?"),
        (("xyz",), 2, "glmplan export --list"),
        (("script", "/nowhere.json"), 2, "cannot read the plan /nowhere.json"),
        (("script", "--use", "poetry"), 2, "no use 'poetry'"),
        (("script", "--host", "0.0.0.0"), 2, "no API key was given"),
        (("script", "--port", "0"), 2, "--port"),
        (("script", "--model-file", ""), 2, "no path of a file"),
        (("script", "--model-file", "glm-4.7-flash"), 2, "no path of a file"),
        (("script", "--model-file", "/" + 5000 * "x" + ".gguf"), 0, ""),
    ],
)
def test_wrong_input_is_told_in_one_message(words: tuple[str, ...], status: int, said: str) -> None:
    done = glmplan("export", *words)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = glmplan("export", "script", plan_file(tmp_path, full_gpu()), "-o", str(tmp_path / "taken" / "x"))
    assert done.returncode == 2
    assert "cannot write" in done.stderr


def test_one_json_document_holds_text_losses_and_judges(tmp_path: Path) -> None:
    target = tmp_path / "x.yaml"
    done = glmplan("export", "compose", plan_file(tmp_path, full_gpu()), "--json", "--check", "-o", str(target))
    document = json.loads(done.stdout)
    assert document["schema"] == "glmplan/export/1"
    assert document["text"] == target.read_text(encoding="utf-8")
    assert document["mode"] == "0644"
    assert document["losses"]
    assert "the Compose Specification's schema" in document["checked_by"]


def test_an_impossible_plan_is_refused_with_the_documented_status(tmp_path: Path) -> None:
    plan = plan_file(tmp_path, full_gpu(cache_type_k="q5_1", cache_type_v="q5_1"))
    target = tmp_path / "Modelfile"
    done = glmplan("export", "modelfile", plan, "-o", str(target), "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["type"] == "NotExpressible"
    assert not target.exists()
