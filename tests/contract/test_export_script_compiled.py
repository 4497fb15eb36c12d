"""The standalone launch script run for real: it becomes a llama-server that answers."""

import json
import os
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from export_plans import request_of, with_file
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.launchers.export.checks.llama_server import version_with
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import ExportRequest, Use
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.targets import llama_server_options
from glmplan.launchers.port import free_port
from glmplan.profiles.host import LocalHost
from glmplan.profiles.probes.engine import find_engines

pytestmark = pytest.mark.compiled

PLACEMENTS: dict[str, dict[str, Any]] = {
    "full-gpu": {"n_gpu_layers": 4},
    "hybrid-experts": {"n_gpu_layers": 4, "n_cpu_moe": 2, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    "cpu-only": {"repack": False, "op_offload": False, "use_mmap": False, "n_parallel": 2},
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    found = {engine.kind: engine for engine in find_engines(LocalHost())}
    return found[EngineKind.LLAMA_SERVER]


@contextmanager
def serving(request: ExportRequest, engine: Engine, folder: Path, *words: str) -> Generator[str]:
    """The script's server as long as the block runs; yields where it answers."""
    script = folder / "launch it.sh"
    script.write_text(export("script", request).text, encoding="utf-8")
    log = folder / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            ["sh", str(script), *words],
            env={**os.environ, "LLAMA_SERVER": engine.path, "LLAMA_ARG_CTX_SIZE": "64"},
            stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{words[1] if words else request.endpoint.port}"
    try:
        wait_until_healthy(url, server, log)
        yield url
        server.send_signal(signal.SIGTERM)  # the shell became the server: the signal reaches it
        assert server.wait(20) == 0, log.read_text(errors="replace")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(errors="replace")
        try:
            if ask(f"{url}/health") == {"status": "ok"}:
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace"))


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_script_serves_the_plan(name: str, engine: Engine, tiny_gguf: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_gguf, EngineKind.LLAMA_SERVER, n_ctx=1024, **PLACEMENTS[name])
    with serving(request_of(plan, port=free_port("127.0.0.1"), use=Use.CODING), engine, tmp_path) as url:
        props = ask(f"{url}/props")
        assert props["total_slots"] == plan.placement.n_parallel
        assert props["model_path"] == str(tiny_gguf)
        settings = props["default_generation_settings"]
        assert settings["n_ctx"] == 1024  # unified: every slot may use all of it
        sampling = {
            key: round(settings["params"][key], 3) for key in ("temperature", "top_p", "min_p", "repeat_penalty")
        }
        assert sampling == {"temperature": 0.7, "top_p": 1.0, "min_p": 0.01, "repeat_penalty": 1.0}
        answer = ask(f"{url}/completion", {"prompt": "one", "n_predict": 4})
        assert answer["timings"]["predicted_n"] >= 1
        assert ask(f"{url}/v1/models")["data"][0]["id"] == "glm-4.7-flash"


def test_names_that_shells_take_apart_reach_the_engine_whole(engine: Engine, tiny_gguf: Path, tmp_path: Path) -> None:
    model = tmp_path / 'it\'s $HOME; #1 "the" `model` %n — ünï\\code.gguf'
    model.write_bytes(tiny_gguf.read_bytes())
    plan = plan_of(model, EngineKind.LLAMA_SERVER, n_ctx=512)
    port = free_port("127.0.0.1")
    with serving(request_of(plan), engine, tmp_path, "--port", str(port)) as url:
        assert ask(f"{url}/props")["model_path"] == str(model)


def test_a_key_file_is_asked_for(engine: Engine, tiny_gguf: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "the key"
    key_file.write_text("secret\n")
    plan = plan_of(tiny_gguf, EngineKind.LLAMA_SERVER, n_ctx=512)
    request = request_of(plan, port=free_port("127.0.0.1"), api_key_file=str(key_file))
    with serving(request, engine, tmp_path) as url, pytest.raises(urllib.error.HTTPError, match="401"):
        ask(f"{url}/props")


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_check_asks_the_real_parser(name: str, engine: Engine, tiny_gguf: Path) -> None:
    request = request_of(plan_of(tiny_gguf, EngineKind.LLAMA_SERVER, n_ctx=1024, **PLACEMENTS[name]))
    exported = export("script", request)
    report = check("script", exported, Tools(llama_server=engine))
    assert report.problems == ()
    assert any("llama-server" in name and "own parser" in name for name in report.by)


def test_the_check_tells_what_the_real_parser_refuses(engine: Engine, tiny_gguf: Path) -> None:
    request = request_of(plan_of(tiny_gguf, EngineKind.LLAMA_SERVER, cache_type_k="q3_x", cache_type_v="q3_x"))
    report = check("script", export("script", request), Tools(llama_server=engine))
    assert "Unsupported cache type: q3_x" in " ".join(report.problems)


def test_a_model_that_is_missing_stops_the_script_before_the_engine(engine: Engine, tmp_path: Path) -> None:
    request = request_of(
        with_file(plan_of(Path("/x"), EngineKind.LLAMA_SERVER, file_bytes=1), str(tmp_path / "no.gguf"))
    )
    script = tmp_path / "launch.sh"
    script.write_text(export("script", request).text)
    environment = {**os.environ, "LLAMA_SERVER": engine.path}
    done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "is not on this machine" in done.stderr


def test_every_option_of_our_table_is_one_of_this_build_with_its_variable(engine: Engine) -> None:
    options = llama_server_options()
    assert set(options) <= engine.flags
    values = {name for name in options.values() if name}
    listed = subprocess.run(
        [engine.path, "--help"], env={**os.environ, "LD_LIBRARY_PATH": engine.library_path or ""},
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    for variable in values:
        assert f"(env: {variable.removesuffix('=0')})" in listed, variable
    refused = version_with(engine, ["--ctx-size", "many"])
    assert refused.returncode == 1
    assert shlex.join(["--ctx-size"]) in "".join(refused.problems()) or "stoi" in "".join(refused.problems())
