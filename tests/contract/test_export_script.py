"""The standalone launch script under a POSIX shell: what it checks, what it says, and what it starts."""

import os
import shlex
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_plans import PLANS, cpu_only, full_gpu, hybrid, request_of, with_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glmplan.launchers.export.exported import ExportRequest, Use
from glmplan.launchers.export.formats import export
from glmplan.launchers.export.targets import llama_server_options
from glmplan.launchers.port import free_port
from glmplan.placement import TensorOverride
from glmplan.plan import Plan

SHELLS = [shell for shell in ("dash", "bash", "busybox", "sh") if shutil.which(shell)]
OLD = {"--load-mode", "--n-cpu-moe", "--no-webui"}
GGUF = b"GGUF" + bytes(96)


class Place:
    """A folder with a model file and a program that passes for llama-server: it writes down how it was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.gguf"
        self.model.write_bytes(GGUF)
        self.server = folder / "bin" / "llama-server"
        self.server.parent.mkdir()
        self.said = folder / "said"
        self.port = free_port("127.0.0.1")
        self.install(set(llama_server_options()))

    def install(self, options: set[str]) -> None:
        listed = "\n".join(f"-x,    {option} VALUE      what it does (default: --none)" for option in sorted(options))
        self.server.write_text(
            "#!/bin/sh\n"
            f"if [ \"$1\" = --help ]; then cat <<'END'\n{listed}\nEND\nexit 0; fi\n"
            f'{{ for word in "$@"; do printf \'%s\\0\' "$word"; done; }} >{shlex.quote(str(self.said))}\n'
            f"env >{shlex.quote(str(self.said))}.env\n",
            encoding="utf-8",
        )
        self.server.chmod(0o755)

    def plan(self, base: Plan | None = None, **knobs: Any) -> Plan:
        return with_file(base or cpu_only(**knobs), str(self.model), len(GGUF))

    def write(self, request: ExportRequest) -> Path:
        path = self.folder / "launch.sh"
        path.write_text(export("script", request).text, encoding="utf-8")
        return path

    def run(
        self, request: ExportRequest | None = None, *words: str, shell: str = "sh", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        path = self.write(request or request_of(self.plan(), port=self.port))
        prefix = ["busybox", "sh"] if shell == "busybox" else [shell]
        environment = {**os.environ, "PATH": f"{self.server.parent}:{os.environ['PATH']}", **variables}
        done = subprocess.run(
            [*prefix, str(path), *words], env=environment, capture_output=True, timeout=30, check=False
        )  # bytes: text mode would turn carriage returns into line feeds
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def words(self) -> list[str]:
        return self.said.read_bytes().decode().split("\0")[:-1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_becomes_the_server_with_every_knob_of_the_plan(place: Place, shell: str) -> None:
    done = place.run(None, shell=shell)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"glm-4.7-flash on http://127.0.0.1:{place.port}/v1\n"
    words = place.words()
    pinned = {
        "--model": str(place.model), "--host": "127.0.0.1", "--port": str(place.port), "--fit": "off",
        "--ctx-size": "32768", "--parallel": "1", "--batch-size": "2048", "--ubatch-size": "512",
        "--cache-type-k": "f16", "--cache-type-v": "f16", "--cache-ram": "0", "--n-gpu-layers": "0",
        "--load-mode": "mmap", "--threads": "2", "--threads-batch": "2", "--flash-attn": "on", "--temp": "1",
        "--top-p": "0.95", "--min-p": "0.01", "--repeat-penalty": "1", "--alias": "glm-4.7-flash",
    }  # fmt: skip
    assert {flag: value(words, flag) for flag in pinned} == pinned
    assert {"--no-repack", "--kv-unified", "--jinja", "--metrics", "--offline", "--no-webui"} <= set(words)


def test_a_dry_run_prints_the_command_and_starts_nothing(place: Place) -> None:
    done = place.run(None, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not place.said.exists()
    words = shlex.split(done.stdout)
    assert words[0] == str(place.server)
    assert value(words, "--ctx-size") == "32768"


def test_options_of_the_script_win_over_the_plan(place: Place) -> None:
    other, port = place.folder / "it's another one.gguf", free_port("127.0.0.1")
    other.write_bytes(GGUF)
    done = place.run(None, "--port", str(port), "--model", str(other))
    assert done.returncode == 0, done.stderr
    assert value(place.words(), "--model") == str(other)
    assert value(place.words(), "--port") == str(port)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--port", "0"), 2, "not a port: 0"),
        (("--port", "70000"), 2, "not a port: 70000"),
        (("--port", "1e3"), 2, "not a port: 1e3"),
        (("--port", ""), 2, "not a port: "),
        (("--port",), 2, "--port needs a value"),
        (("--faster",), 2, "unknown option: --faster"),
        (("--model", "/nowhere/x.gguf"), 2, "the model file /nowhere/x.gguf is not on this machine"),
    ],
)
def test_wrong_options_are_told(place: Place, words: tuple[str, ...], status: int, said: str) -> None:
    done = place.run(None, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert f"error: {said}" in done.stderr
    assert "  try: " in done.stderr
    assert not place.said.exists()


def test_help_names_every_option(place: Place) -> None:
    done = place.run(None, "--help")
    assert done.returncode == 0
    assert {"--model", "--port", "--any-file", "--dry-run"} <= set(
        done.stdout.replace("[", " ").replace("]", " ").split()
    )


def test_a_missing_server_is_told(place: Place) -> None:
    place.server.unlink()
    done = place.run(None, PATH="/usr/bin:/bin")
    assert done.returncode == 4
    assert "error: no llama-server on the PATH" in done.stderr
    done = place.run(None, LLAMA_SERVER=str(place.server))
    assert done.returncode == 4
    assert f"LLAMA_SERVER names {place.server}, which is not a program" in done.stderr


def test_a_server_that_does_not_start_is_told_with_its_last_words(place: Place) -> None:
    place.server.write_text("#!/bin/sh\necho 'libcudart.so.12: cannot open shared object file' >&2\nexit 127\n")
    done = place.run(None)
    assert done.returncode == 4
    assert "does not start: libcudart.so.12: cannot open shared object file" in done.stderr


def test_libraries_beside_the_server_are_found(place: Place) -> None:
    library = place.folder / "lib"
    library.mkdir()
    (library / "libggml-base.so").touch()
    done = place.run(None, LD_LIBRARY_PATH="/somewhere")
    assert done.returncode == 0, done.stderr
    environment = Path(f"{place.said}.env").read_text().splitlines()
    found = next(line for line in environment if line.startswith("LD_LIBRARY_PATH="))
    first, second = found.partition("=")[2].split(":")
    assert Path(first).resolve() == library.resolve()
    assert second == "/somewhere"


def test_settings_of_other_launches_do_not_leak_in(place: Place) -> None:
    done = place.run(None, LLAMA_ARG_CTX_SIZE="7", LLAMA_API_KEY="secret", HF_TOKEN="secret", CUDA_DEVICE_ORDER="")
    assert done.returncode == 0, done.stderr
    environment = Path(f"{place.said}.env").read_text()
    assert "LLAMA_ARG" not in environment
    assert "secret" not in environment
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID\n" in environment


@pytest.mark.parametrize("missing", ["--ctx-size", "--cache-type-k", "--no-repack", "--flash-attn"])
def test_a_build_without_a_needed_option_is_named(place: Place, missing: str) -> None:
    place.install(set(llama_server_options()) - {missing})
    done = place.run(None)
    assert done.returncode == 4
    assert f"this llama-server has no {missing}, which the plan needs for" in done.stderr


def test_a_build_without_an_optional_option_is_started_without_it(place: Place) -> None:
    place.install(set(llama_server_options()) - {"--cors-origins", "--cache-ram"})
    assert place.run(None).returncode == 0
    assert {"--cors-origins", "--cache-ram"}.isdisjoint(place.words())


def test_older_builds_get_the_options_that_newer_ones_replaced(place: Place) -> None:
    older = (set(llama_server_options()) - OLD) | {"--no-mmap", "--mlock", "--no-ui"}
    place.install(older)
    plan = place.plan(hybrid(n_cpu_moe=2, use_mmap=False, use_mlock=True))
    done = place.run(request_of(plan, port=place.port))
    assert done.returncode == 0, done.stderr
    words = place.words()
    assert {"--no-mmap", "--mlock", "--no-ui"} <= set(words)
    experts = "ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
    assert value(words, "--override-tensor") == rf"blk\.0\.{experts},blk\.1\.{experts}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a GGUF file"),
        (b"<html>" + bytes(94), "is not a GGUF file"),
        (GGUF[:50], "is incomplete or another file: 50 bytes, the plan's has 100 or more"),
        (GGUF + bytes(1), "is another file than the plan's: 101 bytes, not 100 or less"),
    ],
)
def test_the_model_file_is_looked_at_before_the_server_starts(place: Place, content: bytes, said: str) -> None:
    plan = place.plan()
    place.model.write_bytes(content)
    done = place.run(request_of(plan, port=place.port))
    assert done.returncode == 2
    assert said in done.stderr
    assert not place.said.exists()


def test_another_file_can_be_taken_on_purpose(place: Place) -> None:
    plan = place.plan()
    place.model.write_bytes(GGUF + bytes(10))
    assert place.run(request_of(plan, port=place.port), "--any-file").returncode == 0


def test_parts_of_a_split_file_are_counted_together(place: Place) -> None:
    parts = [place.folder / f"m-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(GGUF)
    request = request_of(with_file(cpu_only(), str(parts[0]), 2 * len(GGUF)), port=place.port)
    assert place.run(request).returncode == 0
    parts[1].unlink()
    done = place.run(request)
    assert done.returncode == 2
    assert "parts of" in done.stderr


def test_a_port_in_use_is_told(place: Place) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = place.run(None, "--port", str(port))
    assert done.returncode == 4
    assert f"port {port} is in use" in done.stderr


def test_too_little_memory_is_a_warning(place: Place) -> None:
    plan = place.plan()
    device = replace(plan.memory.devices[0], weights_bytes=2**60)
    poor = replace(plan, memory=replace(plan.memory, devices=(device,)))
    done = place.run(request_of(poor, port=place.port))
    assert done.returncode == 0
    assert "warning: the plan needs" in done.stderr


def test_a_plan_without_a_file_asks_for_one_and_takes_a_file_of_about_its_size(place: Place) -> None:
    plan = with_file(full_gpu(), "glm-4.7-flash:q4_K_M", 105)
    request = request_of(plan, port=place.port, exact_size=False)
    done = place.run(request)
    assert done.returncode == 2
    assert "the plan names no model file" in done.stderr
    assert "GLM-4.7-Flash-Q4_K_M.gguf" in done.stderr
    assert place.run(request, "--model", str(place.model)).returncode == 0
    assert export("script", request).losses


def test_use_and_thinking_reach_the_server(place: Place) -> None:
    assert place.run(request_of(place.plan(), port=place.port, use=Use.CODING)).returncode == 0
    words = place.words()
    assert (value(words, "--temp"), value(words, "--top-p")) == ("0.7", "1")
    assert "--reasoning-preserve" in words
    assert place.run(request_of(place.plan(), port=place.port, thinking=False)).returncode == 0
    assert value(place.words(), "--reasoning") == "off"


@pytest.mark.parametrize("name", PLANS)
def test_what_is_written_stays_the_same(name: str) -> None:
    first, second = (export("script", request_of(PLANS[name]())) for _ in range(2))
    assert first == second
    assert first.mode == 0o755
    assert first.text.isascii()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(
        st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=40
    ).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200),
    pattern=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=30),
)
def test_whatever_a_file_is_called_the_server_gets_that_name(place: Place, name: str, pattern: str) -> None:
    model = place.folder / "models" / name
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(GGUF)
    plan = replace(place.plan(override_tensor=(TensorOverride(pattern=pattern),)))
    done = place.run(request_of(with_file(plan, str(model)), port=place.port), "--any-file")
    assert done.returncode == 0, done.stderr
    assert value(place.words(), "--model") == str(model)
    assert value(place.words(), "--override-tensor") == f"{pattern}=CPU"
    done = place.run(request_of(with_file(plan, str(model)), port=place.port), "--any-file", "--dry-run")
    assert value(shlex.split(done.stdout), "--model") == str(model)


@given(text=st.text(st.characters(blacklist_categories=["Cs"]), max_size=60))
def test_nothing_in_a_plan_can_become_a_command_of_the_script(text: str) -> None:
    plan = full_gpu()
    gpu = replace(plan.machine.gpus[0], name=text)
    hostile = replace(
        plan,
        created_at=text,
        machine=replace(plan.machine, gpus=(gpu,), fingerprint=text),
        model=replace(plan.model, name=text.replace("\0", "")),
    )
    before = export("script", request_of(plan)).text.splitlines()
    after = export("script", request_of(hostile)).text.splitlines()
    assert len(before) == len(after)
    assert [line for line in after if not line.startswith("#")] == [line for line in before if not line.startswith("#")]
