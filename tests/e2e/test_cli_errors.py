"""Every mistake a person can make: one clear message with what to do, the documented code, nothing left behind."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from console import Console

from glmplan.boundary import guard
from glmplan.engine import EngineKind
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic

pytestmark = pytest.mark.e2e
GLMPLAN: Final = (sys.executable, "-m", "glmplan")
HEADER_BYTES: Final = 3000


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GLM-4.7-Flash with 3 of its 47 layers: 1.3 GB of which 8 KB are on the disk."""
    path = tmp_path_factory.mktemp("synthetic") / "synthetic.gguf"
    write_synthetic(path, catalog_profile("q4_K_M", n_layer=3), tokenizer=False)
    return path


class Refusals:
    """Runs `glmplan` in a folder of its own, and watches what it leaves there and in the temporary folder."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.folder = console.folder / "work"
        self.temporary = console.folder / "temporary"
        for folder in (self.folder, self.temporary):
            folder.mkdir()
        self.environment = {**console.environment, "TMPDIR": str(self.temporary)}

    def run(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*GLMPLAN, *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False, **options,
        )  # fmt: skip

    def __call__(self, code: int, kind: str, *words: str) -> dict[str, Any]:
        """The error document of a command that must be refused; everything else about it is checked here."""
        before = self.files()
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        document = json.loads(done.stdout)
        assert list(document) == ["error"]
        error: dict[str, Any] = document["error"]
        assert list(error) == ["type", "message", "hint", "facts"]
        assert error["type"] == kind
        said = f"error: {error['message']}\n  try: {error['hint']}\n"
        assert done.stderr.endswith(said), done.stderr
        assert done.stderr.count("error: ") == 1
        assert "\n" not in error["message"]
        assert error["hint"]
        assert self.files() == before
        assert self.unfinished() == []
        assert self.console.leftovers() == []
        return error

    def files(self) -> list[tuple[str, int]]:
        """Everything in the working folder with its size."""
        return sorted((str(path), path.stat().st_size) for path in self.folder.rglob("*"))

    def unfinished(self) -> list[str]:
        """Temporary files, and traces of a crash."""
        home = Path(self.environment["GLMPLAN_HOME"])
        hidden = [path for path in home.rglob("*") if path.name.startswith(".") or path.parent.name == "crashes"]
        return [str(path) for path in [*self.temporary.iterdir(), *hidden]]


@pytest.fixture
def refused(console: Console) -> Iterator[Refusals]:
    """Runs commands that must be refused; nothing may be left when the test ends."""
    refusals = Refusals(console)
    yield refusals
    assert refusals.unfinished() == []


@dataclass(frozen=True)
class Mistake:
    """Words of a command, and what the error must say: parts of its message and of its hint."""

    words: str
    message: str
    hint: str
    code: int = 2
    kind: str = "InputError"


MISTAKES: Final = [
    Mistake("plan --quant q4km", "unknown quantisation 'q4km'", "did you mean q4_K_M", kind="ProfileError"),
    Mistake("estimate --quant q9", "unknown quantisation 'q9'", "known: q4_K_M, q8_0, bf16", kind="ProfileError"),
    Mistake("plan --quant IQ3", "unknown quantisation 'IQ3'", "did you mean IQ3_", kind="ProfileError"),
    Mistake("plan --model nemo", "unknown model 'nemo'", "did you mean nemotron-3-nano-30b-a3b", kind="ProfileError"),
    Mistake("models glm5", "unknown model 'glm5'", "known: glm-4.7-flash", kind="ProfileError"),
    Mistake("fetch --model glm-4.7", "which model --quant is of", "--model glm-4.7 --quant"),
    Mistake("plan --n-ctx 202753", "202753 tokens is outside", "--n-ctx up to 202752"),
    Mistake("estimate --n-ctx 202753", "202753 tokens is outside", "--n-ctx up to 202752"),
    Mistake("estimate --n-ctx 0", "0 tokens is outside", "--n-ctx up to 202752"),
    Mistake("plan --n-ctx lots", "not a number of tokens: 'lots'", "32768 or 32k"),
    Mistake("plan --n-ctx -4", "not a number of tokens: '-4'", "32768 or 32k"),
    Mistake("plan --n-ctx 1.5", "not a number of tokens: '1.5'", "32768 or 32k"),
    Mistake("plan --cache-type q9_9", "unknown KV cache type 'q9_9'", "q8_0"),
    Mistake("estimate --cache-type q9_9", "no q9_9 cache", "q8_0"),
    Mistake("estimate --cache-type q8_0 --flash-attn off", "needs flash attention", "--flash-attn on"),
    Mistake("plan --reserve some", "not a size: 'some'", "16GiB"),
    Mistake("plan --reserve -5GiB", "not a size: '-5GiB'", "16GiB"),
    Mistake("plan --on gpu:16GiB --ram some", "not a size: 'some'", "16GiB"),
    Mistake("plan --on cpu:32GiB --ram 64GiB", "cpu: names the memory already", "without --ram"),
    Mistake("plan --on rtx-4091", "no device named 'rtx-4091'", "rtx-4090", kind="ProfileError"),
    Mistake("plan --on apple-m4-max:63", "not sold with 63.0 GiB", "apple-m4-max:128", kind="ProfileError"),
    Mistake("plan --on gpu:", "not a size: ''", "16GiB"),
    Mistake("plan --on gpu:0GiB", "cannot have 0GiB", "gpu:24GiB"),
    Mistake("plan --on gpu:16GiB/20GiB", "20.0 GiB free of 16.0 GiB", "total/free"),
    Mistake("plan --on gpu:16GiB,", "not a size: ''", "16GiB"),
    Mistake("plan --on 0x", "no device named '0x'", "", kind="ProfileError"),
    Mistake("plan --on absent.json", "cannot read the machine absent.json", "glmplan detect --json"),
    Mistake("plan --on notes.json", "notes.json", "Machine"),
    Mistake("plan --objective speed", "'speed' is not one of", "glmplan plan --help"),
    Mistake("plan --engine vllm", "unknown kind of engine 'vllm'", "llama-server"),
    Mistake("plan --depth -1", "--depth", "glmplan plan --help"),
    Mistake("plan --depth 9000 --n-ctx 8k", "depth of 9000 tokens", "--depth 0 to 8192"),
    Mistake("plan --n-parallel 0", "--n-parallel", "glmplan plan --help"),
    Mistake("plan --min-decode nan", "--min-decode", "glmplan plan --help"),
    Mistake("estimate --on gpu:24GiB --tensor-split a,b", "'a,b' is not a list of numbers", "--tensor-split 3,1"),
    Mistake("estimate --on gpu:24GiB --tensor-split 0,0", "'0,0' is not a list of shares", "--tensor-split 3,1"),
    Mistake("estimate --on gpu:24GiB --tensor-split nan", "'nan' is not a list of shares", "--tensor-split 3,1"),
    Mistake("estimate --on gpu:24GiB --tensor-split 3,1", "2 shares, the machine 1 GPUs", "one share for each GPU"),
    Mistake("estimate --n-gpu-layers most", "'most' is neither a number nor all", "0 to 48, or all"),
    Mistake("estimate --n-cpu-moe -1", "--n-cpu-moe", "glmplan estimate --help"),
    Mistake("estimate --n-ubatch 0", "--n-ubatch", "glmplan estimate --help"),
    Mistake("estimate --override-tensor exps", "'exps' is not PATTERN=BUFFER", "=CPU"),
    Mistake("estimate --on gpu:24GiB --override-tensor [=CPU", "not a regular expression: '['", "quote"),
    Mistake("estimate --exact --on gpu:24GiB", "the engine of this machine", "leave --on or --exact out"),
    Mistake("plan --gguf absent.gguf", "cannot read absent.gguf: No such file", "check the path"),
    Mistake("plan --gguf page.gguf", "not a GGUF file: it starts with '<!do'", "this is a web page", kind="GgufError"),
    Mistake("inspect page.gguf", "not a GGUF file", "/resolve/", kind="GgufError"),
    Mistake("plan --gguf header.gguf", "the file has", "download it again", kind="GgufError"),
    Mistake("plan --gguf short.gguf", "is incomplete", "finish the download", kind="GgufError"),
    Mistake("estimate --gguf short.gguf", "is incomplete", "finish the download", kind="GgufError"),
    Mistake("inspect short.gguf", "is incomplete", "finish the download", kind="GgufError"),
    Mistake("inspect http://127.0.0.1:9/x.gguf", "cannot connect to", "check the address"),
    Mistake("run notes.json", "Invalid JSON", "glmplan plan -o FILE", kind="PlanFileError"),
    Mistake("run absent.json", "cannot read the plan absent.json: No such", "glmplan plan -o", kind="PlanFileError"),
    Mistake("run .", "cannot read the plan .: Is a directory", "glmplan plan -o", kind="PlanFileError"),
    Mistake("run --port 70000", "--port", "glmplan run --help"),
    Mistake("run --port http", "--port", "glmplan run --help"),
    Mistake("bench --depth deep", "not a number of tokens: 'deep'", "32k"),
    Mistake("bench http://127.0.0.1:9", "no server answers", "glmplan run starts one", code=6, kind="BenchError"),
    Mistake("logs --port 1", "--json", "glmplan logs --help"),
    Mistake("demo --layers 1", "--json", "glmplan demo --help"),
    Mistake("plan --speed", "No such option: --speed", "glmplan plan --help"),
    Mistake("plna", "No such command 'plna'. Did you mean 'plan'", "glmplan --help"),
    Mistake("inspect", "Missing argument", "glmplan inspect --help"),
    Mistake("devices voodoo", "'voodoo'", "glmplan devices", kind="ProfileError"),
    Mistake("detect --replay .", ". is not a tape", "glmplan detect --record", kind="InputError"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.words)
def test_bad_input(mistake: Mistake, refused: Refusals, synthetic: Path) -> None:
    write_bad_files(refused.folder, synthetic)
    error = refused(mistake.code, mistake.kind, *mistake.words.split(" "))
    assert mistake.message in error["message"]
    assert mistake.hint in error["hint"]


def write_bad_files(folder: Path, synthetic: Path) -> None:
    (folder / "notes.json").write_text("buy milk")
    (folder / "page.gguf").write_text("<!doctype html><title>Sign in</title>")
    with synthetic.open("rb") as whole:
        head = whole.read(2**20)
    (folder / "header.gguf").write_bytes(head[:HEADER_BYTES])
    (folder / "short.gguf").write_bytes(head)


def test_a_machine_that_is_too_small_names_the_nearest_misses(refused: Refusals) -> None:
    error = refused(3, "NothingFits", "plan", "--on", "cpu:8GiB")
    missing = {miss["quantization"]: miss["missing_bytes"]["host"] for miss in error["facts"]["nearest_misses"]}
    assert {"q4_K_M", "q8_0", "bf16"} <= set(missing)
    # A context of 4,096 tokens and the rest take less than the 8 GiB that are there; a larger file lacks more.
    assert 0 < missing["q4_K_M"] < 17_283.7 * 2**20 < missing["q8_0"] < missing["bf16"] < 57_124.5 * 2**20
    assert f"{min(missing.values()) / 2**30:.1f} GiB short" in error["message"]


def test_a_speed_nothing_reaches_names_the_fastest(refused: Refusals) -> None:
    error = refused(3, "ObjectiveUnmet", "plan", "--on", "gpu:24GiB", "--min-decode", "100000")
    assert "the fastest reaches" in error["message"]
    assert error["hint"].startswith("--min-decode ")


@pytest.mark.parametrize("place", [".", "/", "notes.json/plan.json", "/proc/plan.json"])
def test_a_plan_that_cannot_be_written(place: str, refused: Refusals) -> None:
    (refused.folder / "notes.json").write_text("buy milk")
    error = refused(2, "InputError", "plan", "--on", "gpu:24GiB", "-o", place)
    assert "cannot write" in error["message"]
    assert "-o" in error["hint"]


def test_an_output_that_exists_is_replaced_whole_and_a_device_is_written_into(refused: Refusals) -> None:
    plan, link = refused.folder / "plan.json", refused.folder / "link.json"
    plan.write_text("old " * 100_000)
    link.symlink_to(plan.name)
    done = refused.run("plan", "--on", "gpu:24GiB", "-o", "link.json")
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    assert json.loads(plan.read_text())["schema"] == "glmplan/plan/1"
    twice = refused.run("plan", "--on", "gpu:24GiB", "-o", "/dev/stdout", "--json")
    written, _ = json.JSONDecoder().raw_decode(twice.stdout)
    assert written["schema"] == "glmplan/plan/1"
    assert Path("/dev/stdout").is_symlink()


def spoil_schema(plan: dict[str, Any]) -> None:
    plan["schema"] = "glmplan/plan/2"


def spoil_property(plan: dict[str, Any]) -> None:
    plan["placement"]["n_gpu_layer"] = 3


def spoil_range(plan: dict[str, Any]) -> None:
    plan["placement"]["n_ctx"] = -3


def spoil_name(plan: dict[str, Any]) -> None:
    plan["placement"]["cache_type_k"] = "q9_9"


def spoil_missing(plan: dict[str, Any]) -> None:
    del plan["model"]["file_bytes"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_schema, "schema: Input should be 'glmplan/plan/1'"),
        (spoil_property, "placement.n_gpu_layer: "),
        (spoil_range, "placement.n_ctx: -3 is less than 1"),
        (spoil_name, 'placement.cache_type_k: "q9_9" is not one of'),
        (spoil_missing, "model.file_bytes: "),
    ],
)
@pytest.mark.parametrize("command", ["run", "bench", "doctor"])
def test_a_spoilt_plan_file_is_named_with_its_place(
    command: str, spoil: Callable[[dict[str, Any]], None], message: str, refused: Refusals
) -> None:
    document = json.loads(Path(refused.console.plan(EngineKind.XLLAMACPP)).read_text())
    spoil(document)
    (refused.folder / "spoilt.json").write_text(json.dumps(document))
    error = refused(2, "PlanFileError", command, "spoilt.json")
    assert f"spoilt.json: {message}" in error["message"]


def test_a_port_in_use(refused: Refusals) -> None:
    plan = refused.console.plan(EngineKind.XLLAMACPP)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        error = refused(4, "PortTaken", "run", plan, "--port", str(port))
    assert str(port) in error["message"]
    assert f"--port {error['facts']['free_port']}" in error["hint"]


def test_an_engine_that_dies_while_loading(refused: Refusals) -> None:
    """A tensor of another name: the header is sound, and only the engine finds out."""
    broken = refused.folder / "broken.gguf"
    whole = refused.console.model.read_bytes()
    broken.write_bytes(whole.replace(b"output_norm.weight", b"outptu_norm.weight"))
    refused.console.model = broken
    error = refused(4, "EngineExited", "run", refused.console.plan(EngineKind.XLLAMACPP), "--port", "0")
    assert any("output_norm.weight" in line for line in error["facts"]["log_tail"])
    assert Path(error["facts"]["log"]).is_file()
    assert json.loads(refused.run("status", "--json").stdout)["engines"] == []


def test_a_model_file_cut_since_it_was_planned(refused: Refusals) -> None:
    model = refused.folder / "model.gguf"
    shutil.copy(refused.console.model, model)
    refused.console.model = model
    plan, whole_bytes = refused.console.plan(EngineKind.XLLAMACPP), model.stat().st_size
    with model.open("r+b") as stream:
        stream.truncate(500_000)
    error = refused(2, "GgufError", "run", plan, "--port", "0")
    assert error["facts"] == {"bytes": 500_000, "expected_bytes": whole_bytes}
    assert error["hint"].startswith("finish the download")


# A listing longer than a pipe holds, a short text, help, and an error told to nobody.
@pytest.mark.parametrize(
    ("words", "code"),
    [("devices --json", 0), ("status", 0), ("--help", 0), ("plan --on cpu:4GiB --json", 3)],
)
@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_goes_away_is_no_error(words: str, code: int, lines: int, refused: Refusals) -> None:
    with subprocess.Popen(
        [*GLMPLAN, *words.split(" ")], env=refused.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for _ in range(lines):
            running.stdout.readline()
        running.stdout.close()
        said = running.stderr.read().decode()
    assert running.returncode == code
    assert said.count("\n") == (2 if code else 0)
    assert "Traceback" not in said


@pytest.mark.parametrize("words", ["status", "devices --json", "plan --on cpu:4GiB --json"])
def test_closed_streams_are_no_error(words: str, refused: Refusals) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        line = f'exec "$0" -m glmplan {words} {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", line, sys.executable],
            env=refused.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == (3 if "cpu:4GiB" in words else 0), done.stderr
        assert "Traceback" not in done.stderr
        assert "bug" not in done.stderr


def test_a_full_disk_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def write() -> None:
        raise OSError(28, "No space left on device", "plan.json")

    assert guard(write, ["--json"]) == 1
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    free, total = (f"{error['facts'][name]:,}" for name in ("free_bytes", "total_bytes"))
    assert err.splitlines() == [
        f"error: cannot write plan.json: No space left on device ({free} of {total} bytes are free)",
        "  try: make room on that disk, or write elsewhere",
    ]
    assert error["type"] == "GlmplanError"


def test_a_bug_says_so_and_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        message = "the moon"
        raise RuntimeError(message)

    assert guard(fail, ["--json"]) == 70
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["type"] == "Bug"
    assert error["message"] in err
    trace = Path(error["hint"].partition("the traceback is in ")[2].partition(";")[0])
    assert "RuntimeError: the moon" in trace.read_text()
    assert trace.stat().st_mode & 0o777 == 0o600


def test_without_a_command_there_is_help(refused: Refusals) -> None:
    bare, asked = refused.run(), refused.run("--help")
    assert (bare.returncode, bare.stdout) == (0, asked.stdout)


def test_without_json_standard_output_stays_empty(refused: Refusals) -> None:
    done = refused.run("plan", "--on", "cpu:8GiB")
    assert (done.returncode, done.stdout) == (3, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: nothing fits")
    assert hint.startswith("  try: ")
    assert "GiB more on host" in hint
