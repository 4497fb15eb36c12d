"""llama-server's own formats: what was planned comes back from a shell, an environment file and a preset."""

import shlex
import subprocess
from pathlib import Path

import pytest
from export_plans import PLANS, cpu_only, full_gpu, hybrid, request_of, with_file
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.export.checks import grammars
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest, Use
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.server_knobs import knobs_of, words_of
from glmplan.launchers.launch import Endpoint
from glmplan.placement import FlashAttention, TensorOverride
from glmplan.plan import Plan

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40)
# What breaks grammars, more often than chance would bring it.
NASTY = st.text(st.sampled_from("ab %$;#'\"\\\n\t=`~*?[]{}()!&|<>: \u00e9\u2019\u2028\ufeff"), min_size=1, max_size=12)
NAMES = st.one_of(TEXT, NASTY)


def by_shell(text: str) -> list[str]:
    """The words a real shell makes of a command."""
    done = subprocess.run(
        ["sh", "-c", text.replace("llama-server ", "printf '%s\\0' ", 1)], capture_output=True, check=True, timeout=10
    )
    return done.stdout.decode().split("\0")[:-1]


def sourced(text: str, folder: Path) -> dict[str, str]:
    """The variables a real shell has after `set -a; . FILE`."""
    path = folder / "file.env"
    path.write_bytes(text.encode())
    done = subprocess.run(
        ["sh", "-c", f"set -a; . {shlex.quote(str(path))}; env -0"], capture_output=True, check=True, timeout=10, env={}
    )
    pairs = (line.partition("=") for line in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("LLAMA_ARG_")}


def expected_variables(request: ExportRequest) -> dict[str, str]:
    table = targets.llama_server_options()
    found: dict[str, str] = {}
    for knob in knobs_of(request):
        name = table[knob.spellings[0]]
        if name is not None:
            variable, _, off = name.partition("=")
            found[variable] = off or knob.value or "1"
    return found


@pytest.mark.parametrize("name", PLANS)
def test_the_command_has_every_knob_of_the_plan(name: str) -> None:
    plan = PLANS[name]()
    placement = plan.placement
    words = by_shell(export("llama-server", request_of(plan)).text)
    said = {flag: words[words.index(flag) + 1] for flag in words if flag.startswith("--") and flag != words[-1]}
    assert said["--model"] == plan.model.file
    assert said["--ctx-size"] == str(placement.n_ctx)
    assert said["--n-gpu-layers"] == str(placement.n_gpu_layers)
    assert said.get("--n-cpu-moe", "0") == str(placement.n_cpu_moe)
    assert (said["--batch-size"], said["--ubatch-size"]) == (str(placement.n_batch), str(placement.n_ubatch))
    assert (said["--cache-type-k"], said["--cache-type-v"]) == (placement.cache_type_k, placement.cache_type_v)
    assert (said["--threads"], said["--threads-batch"]) == (str(placement.n_threads), str(placement.n_threads_batch))
    assert (said["--fit"], said["--parallel"], said["--flash-attn"]) == ("off", "1", "on")
    assert said["--cache-ram"] == str(placement.cache_ram_bytes // 2**20)
    assert said["--load-mode"] == placement.load_mode
    assert ("--no-repack" in words) is (not placement.repack)


@settings(max_examples=30, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name=";#'\"\\ $x `y` %n\n", pattern="a#b;c")
def test_the_command_comes_back_whole_from_a_shell(name: str, pattern: str) -> None:
    plan = with_file(full_gpu(override_tensor=(TensorOverride(pattern=pattern),)), f"/models/{name}")
    request = request_of(plan)
    assert by_shell(export("llama-server", request).text) == words_of(knobs_of(request))


@pytest.mark.parametrize("name", PLANS)
def test_variables_come_back_from_a_shell_and_from_our_reader(name: str, tmp_path: Path) -> None:
    request = request_of(PLANS[name](), api_key_file="/etc/the key")
    text = export("llama-server-env", request).text
    assert sourced(text, tmp_path) == grammars.env_file(text) == expected_variables(request)


@settings(max_examples=30, deadline=None)
@given(name=NAMES)
@example(name="a b")
@example(name="it's")
@example(name="C:\\models")
@example(name="$HOME")
def test_a_variable_comes_back_whole_or_is_refused(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    request = request_of(with_file(full_gpu(), f"/models/{name}"))
    try:
        text = export("llama-server-env", request).text
    except NotExpressible:
        assert any(char in name for char in "$`\"'\\") or not name.isprintable()
        return
    assert sourced(text, tmp_path_factory.mktemp("env"))["LLAMA_ARG_MODEL"] == f"/models/{name}"
    assert grammars.env_file(text)["LLAMA_ARG_MODEL"] == f"/models/{name}"


def test_what_has_no_variable_is_told() -> None:
    losses = export("llama-server-env", request_of(full_gpu(n_threads_batch=16, op_offload=False))).losses
    assert any("--threads-batch 16" in loss for loss in losses)
    assert any("--no-op-offload" in loss for loss in losses)
    quoted = export("llama-server-env", request_of(with_file(full_gpu(), "/my models/x.gguf"))).losses
    assert any("docker run --env-file" in loss for loss in quoted)
    assert export("llama-server-env", request_of(full_gpu())).losses == ()


@pytest.mark.parametrize("name", PLANS)
def test_a_preset_comes_back_whole(name: str) -> None:
    request = request_of(PLANS[name]())
    section = grammars.preset(export("llama-server-ini", request).text)["glm-4.7-flash"]
    left_to_the_router = {"alias", "host", "port", "cors-origins"}
    knobs = {knob.spellings[0].removeprefix("--"): knob.value or "true" for knob in knobs_of(request)}
    assert section == {key: value for key, value in knobs.items() if key not in left_to_the_router}


@given(name=NAMES)
@example(name="a;b")
@example(name="a#b")
@example(name="a\nb")
@example(name="a ")
def test_what_a_preset_would_cut_is_refused(name: str) -> None:
    request = request_of(with_file(full_gpu(), f"/models/{name}"))
    try:
        text = export("llama-server-ini", request).text
    except NotExpressible:
        assert any(char in ";#" or ord(char) < 32 or ord(char) == 127 for char in name) or name.endswith(" ")
        return
    assert grammars.preset(text)["glm-4.7-flash"]["model"] == f"/models/{name}"


@pytest.mark.parametrize("alias", ["", "a]", "a:q4", "a\nb", " a", "a\x7f"])
def test_a_section_that_would_be_renamed_is_refused(alias: str) -> None:
    request = ExportRequest(plan=full_gpu(), endpoint=Endpoint(port=1, alias=alias))
    with pytest.raises(NotExpressible, match="cannot name a section"):
        export("llama-server-ini", request)


def test_how_the_router_is_started_stands_in_the_file() -> None:
    text = export("llama-server-ini", request_of(full_gpu(), port=9000, api_key_file="/etc/key")).text
    assert "--models-max 1 --cors-origins localhost --host 127.0.0.1 --port 9000 --api-key-file /etc/key" in text


def test_use_and_thinking_reach_every_format() -> None:
    words = words_of(knobs_of(request_of(hybrid(), use=Use.CODING)))
    assert words[words.index("--temp") + 1] == "0.7"
    assert words[-1] == "--reasoning-preserve"
    assert words_of(knobs_of(request_of(hybrid(), thinking=False)))[-2:] == ["--reasoning", "off"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("llama-server", "llama-server --mlock\n", "llama-server has no option --mlock"),
        ("llama-server", "llama-server '", "No closing quotation"),
        ("llama-server-env", "LLAMA_ARG_CTX=1\n", "reads no variable LLAMA_ARG_CTX"),
        ("llama-server-env", "LLAMA\n", "no assignment"),
        ("llama-server-ini", "[a]\nmmap = true\n", "no option --mmap"),
        ("llama-server-ini", "[a]\nmodel\n", "neither a section nor an assignment"),
        ("script", "if\n", "syntax error"),
        ("powershell", "if ($x) { 'a\n", "a quote is not closed"),
        ("powershell", "if ($x) { 'a'\n", "a bracket is not closed"),
        ("powershell", "if ($x) ] }\n", "a bracket too many"),
    ],
)
def test_the_checks_refuse_what_is_wrong(name: str, text: str, said: str) -> None:
    report = check(name, Exported(text=text, suffix=""), Tools())
    assert any(said.lower() in problem.lower() for problem in report.problems), report


@pytest.mark.parametrize("plan", [full_gpu(flash_attn=FlashAttention.AUTO), cpu_only(use_mmap=False, use_mlock=True)])
def test_odd_knobs_are_accepted_by_the_checks(plan: Plan) -> None:
    for name in ("script", "powershell", "llama-server", "llama-server-env", "llama-server-ini"):
        assert check(name, export(name, request_of(plan)), Tools()).problems == ()


@settings(max_examples=40, deadline=None)
@given(name=NAMES)
@example(name="it\u2019s \u201aquoted\u2018")
def test_powershell_gets_names_whole_or_they_are_refused(name: str) -> None:
    path = f"C:\\models\\{name}"
    try:
        text = export("powershell", request_of(with_file(full_gpu(), path))).text
    except NotExpressible:
        assert any(char == '"' or ord(char) < 32 or ord(char) == 127 for char in name)
        return
    assert path in grammars.powershell(text)
    assert text.startswith("\ufeff") is not text.isascii()


def test_the_powershell_script_says_what_the_posix_one_says() -> None:
    """Both are made from the same knobs: their literals hold the same options and values."""
    request = request_of(hybrid(use_mmap=False, use_mlock=True))
    literals = grammars.powershell(export("powershell", request).text)
    for word in words_of(knobs_of(request)):
        assert word in literals or word in {"127.0.0.1", "8080"}
    assert {"--no-mmap", "--mlock", "--gpu-layers", "--no-ui"} <= set(literals)


def test_a_path_of_the_target_is_taken_as_it_is() -> None:
    text = export("llama-server", request_of(full_gpu(), server="/opt/llama cpp/llama-server")).text
    assert "'/opt/llama cpp/llama-server' \\\n" in text
