"""Services and containers: the command comes back whole from units, property lists, compose files and llama-swap."""

import dataclasses
import plistlib
import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
from export_plans import PLANS, cpu_only, full_gpu, hybrid, request_of, with_file
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glmplan.errors import NotExpressible
from glmplan.launchers.export.checks import grammars, json_schema
from glmplan.launchers.export.checks.containers import command_of
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest
from glmplan.launchers.export.formats import check, export
from glmplan.launchers.export.server_knobs import knobs_of, words_of
from glmplan.launchers.export.yaml_text import load
from glmplan.launchers.launch import Endpoint
from glmplan.placement import TensorOverride
from glmplan.plan import Plan

# The administrator's home, which lies beside the others.
_ROOTS_FILE = str(PurePosixPath("/", "root", "x.gguf"))

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40)
NASTY = st.text(st.sampled_from("ab %$;#'\"\\\n\t=`~*?[]{}()!&|<>:é\u2019\u2028\ufeff@+-"), min_size=1, max_size=12)
NAMES = st.one_of(TEXT, NASTY).filter(lambda name: "/" not in name and name not in {".", ".."})


def unit_of(name: str, request: ExportRequest) -> dict[str, list[tuple[str, str]]]:
    return grammars.unit(export(name, request).text)


def one(pairs: list[tuple[str, str]], key: str) -> str:
    (found,) = [value for name, value in pairs if name == key]
    return found


def with_pattern(name: str, pattern: str) -> Plan:
    return with_file(hybrid(override_tensor=(TensorOverride(pattern=pattern),)), f"/models/{name}")


def has_controls(*values: str) -> bool:
    return any(ord(char) < 32 or ord(char) == 127 for value in values for char in value)


@pytest.mark.parametrize("name", PLANS)
def test_a_unit_starts_the_planned_command(name: str) -> None:
    request = request_of(PLANS[name](), server="/opt/bin/llama-server")
    sections = unit_of("systemd", request)
    words = grammars.unit_words(one(sections["Service"], "ExecStart"))
    assert words == ["/opt/bin/llama-server", *words_of(knobs_of(request))]
    assert one(sections["Service"], "DynamicUser") == "yes"
    assert one(sections["Service"], "MemoryMax") == f"{60 * 1024}M"
    assert one(sections["Install"], "WantedBy") == "multi-user.target"


@settings(max_examples=60, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name="100% $HOME", pattern=r"blk\.(1|2)\.ffn_.*_exps$")
@example(name=";", pattern='"')
def test_a_unit_expands_nothing_and_cuts_nothing(name: str, pattern: str) -> None:
    request = request_of(with_pattern(name, pattern), server="/opt/bin/llama-server")
    try:
        sections = unit_of("systemd", request)
    except NotExpressible:
        assert has_controls(name, pattern)
        return
    words = grammars.unit_words(one(sections["Service"], "ExecStart"))
    assert words[1:] == words_of(knobs_of(request))


@pytest.mark.parametrize("file", ["/home/me/models/x.gguf", _ROOTS_FILE])
def test_files_in_a_home_make_a_unit_of_the_user(file: str) -> None:
    request = request_of(with_file(full_gpu(), file), server="/opt/bin/llama-server")
    sections = unit_of("systemd", request)
    assert "DynamicUser" not in dict(sections["Service"])
    assert one(sections["Install"], "WantedBy") == "default.target"
    assert "~/.config/systemd/user" in export("systemd", request).text


def test_a_key_reaches_a_unit_as_a_credential() -> None:
    request = request_of(full_gpu(), server="/opt/bin/llama-server", api_key_file="/etc/glm/key")
    service = unit_of("systemd", request)["Service"]
    assert one(service, "LoadCredential") == "api-key:/etc/glm/key"
    words = grammars.unit_words(one(service, "ExecStart"), {"d": "/run/credentials/x"})
    assert words[-2:] == ["--api-key-file", "/run/credentials/x/api-key"]
    with pytest.raises(NotExpressible, match="LoadCredential"):
        export("systemd", request_of(full_gpu(), server="/opt/bin/llama-server", api_key_file="/etc/my key"))


@pytest.mark.parametrize("name", ["systemd", "launchd"])
def test_a_service_needs_an_absolute_program(name: str) -> None:
    for server in ("llama-server", "./llama-server", "/opt/$x/llama-server"):
        with pytest.raises(NotExpressible):
            export(name, request_of(full_gpu(), server=server))
    assert any("the place of llama-server is not known" in loss for loss in export(name, request_of(full_gpu())).losses)
    assert export(name, request_of(full_gpu(), server="/opt/bin/llama-server")).losses == ()


@pytest.mark.parametrize("name", ["systemd", "launchd", "compose", "quadlet"])
def test_a_service_needs_an_absolute_model_file(name: str) -> None:
    request = request_of(with_file(full_gpu(), "models/x.gguf"), server="/opt/bin/llama-server")
    with pytest.raises(NotExpressible, match="no absolute path"):
        export(name, request)


def test_libraries_beside_the_program_are_named() -> None:
    request = request_of(full_gpu(), server="/w/bin/llama-server", library_path="/w/lib")
    assert ("Environment", "LD_LIBRARY_PATH=/w/lib") in unit_of("systemd", request)["Service"]
    document = plistlib.loads(export("launchd", request).text.encode())
    assert document["EnvironmentVariables"] == {"DYLD_LIBRARY_PATH": "/w/lib"}


@settings(max_examples=40, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name="<&>]]>", pattern="--")
def test_an_agent_starts_the_planned_command(name: str, pattern: str) -> None:
    request = request_of(with_pattern(name, pattern), server="/opt/bin/llama-server")
    try:
        text = export("launchd", request).text
    except NotExpressible:
        assert has_controls(name, pattern) or "\ufffe" in name + pattern or "\uffff" in name + pattern
        return
    document = plistlib.loads(text.encode())
    assert document["ProgramArguments"] == ["/opt/bin/llama-server", *words_of(knobs_of(request))]
    assert document["ProcessType"] == "Interactive"


def inside(request: ExportRequest, name: str) -> list[str]:
    """The command as a container is to run it."""
    knobs = knobs_of(request, model=f"/models/{name}", host="0.0.0.0")
    return words_of([knob for knob in knobs if knob.spellings[0] != "--api-key-file"])


@settings(max_examples=40, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name="$HOME ${X} $$", pattern="ffn$")
def test_a_compose_file_starts_the_planned_command(name: str, pattern: str) -> None:
    request = request_of(with_pattern(name, pattern))
    document = load(export("compose", request).text)
    assert command_of(document) == inside(request, name)
    assert json_schema.problems(document, json_schema.schema("compose-spec")) == ()


def test_a_compose_file_publishes_on_the_address_and_mounts_the_folder() -> None:
    request = request_of(with_file(full_gpu(), "/my models/$x/a.gguf"), port=9000, api_key_file="/etc/key")
    document = load(export("compose", request).text)
    service = document["services"]["llama-server"]
    assert service["ports"] == ["127.0.0.1:9000:9000"]
    assert service["volumes"][0] == {
        "type": "bind", "source": "/my models/$$x", "target": "/models", "read_only": True,
    }  # fmt: skip
    assert service["healthcheck"]["test"][-1] == "http://127.0.0.1:9000/health"
    assert service["command"][-2:] == ["--api-key-file", "/run/secrets/api_key"]
    assert document["secrets"] == {"api_key": {"file": "/etc/key"}}
    everywhere = ExportRequest(plan=full_gpu(), endpoint=Endpoint(host="0.0.0.0", port=1, api_key_file="/k"))
    assert load(export("compose", everywhere).text)["services"]["llama-server"]["ports"] == ["0.0.0.0:1:1"]


@pytest.mark.parametrize(
    ("gpu", "image"),
    [
        ("NVIDIA GeForce RTX 4090", "server-cuda"),
        ("AMD Radeon RX 7900 XTX", "server-rocm"),
        ("AMD Instinct MI300X", "server-rocm"),
        ("Intel Arc A770", "server-intel"),
    ],
)
def test_the_image_fits_the_gpu(gpu: str, image: str) -> None:
    plan = full_gpu()
    machine = dataclasses.replace(plan.machine, gpus=(dataclasses.replace(plan.machine.gpus[0], name=gpu),))
    request = request_of(dataclasses.replace(plan, machine=machine))
    service = load(export("compose", request).text)["services"]["llama-server"]
    assert service["image"].endswith(f":{image}")
    assert ("deploy" in service) is (image == "server-cuda")
    assert ("devices" in service) is (image != "server-cuda")
    assert check("quadlet", export("quadlet", request), Tools()).problems == ()
    on_cpu = load(export("compose", request_of(cpu_only())).text)["services"]["llama-server"]
    assert on_cpu["image"].endswith(":server")
    assert not {"deploy", "devices"} & set(on_cpu)


@pytest.mark.parametrize("name", ["compose", "quadlet"])
def test_a_container_on_a_mac_has_no_gpu(name: str) -> None:
    plan = full_gpu()
    mac = dataclasses.replace(plan, machine=dataclasses.replace(plan.machine, os="macOS 26"))
    with pytest.raises(NotExpressible, match="Apple's GPU"):
        export(name, request_of(mac))


@settings(max_examples=60, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name="100%", pattern=r"blk\.(1|2)\.ffn_.*_exps$")
def test_a_quadlet_starts_the_planned_command(name: str, pattern: str) -> None:
    request = request_of(with_pattern(name, pattern))
    try:
        sections = unit_of("quadlet", request)
    except NotExpressible:
        assert has_controls(name, pattern)
        return
    assert grammars.unit_words(one(sections["Container"], "Exec")) == inside(request, name)
    assert one(sections["Container"], "Volume") == "/models:/models:ro"


@pytest.mark.parametrize("folder", ["/a:b", "/a$b", '/a"b'])
def test_a_folder_that_a_volume_cannot_name_is_refused(folder: str) -> None:
    with pytest.raises(NotExpressible, match="a volume of a quadlet"):
        export("quadlet", request_of(with_file(full_gpu(), f"{folder}/x.gguf")))


@settings(max_examples=60, deadline=None)
@given(name=NAMES, pattern=NAMES)
@example(name="${PORT}", pattern="x")
@example(name="#x \\", pattern="'$x'")
def test_llama_swap_starts_the_planned_command(name: str, pattern: str) -> None:
    request = request_of(with_pattern(name, pattern))
    try:
        document = load(export("llama-swap", request).text)
    except NotExpressible:
        assert any("${" in value or "\n" in value or "\r" in value for value in (name, pattern))
        return
    (model,) = document["models"].values()
    words = swapped(model["cmd"])
    knobs = [knob for knob in knobs_of(request) if knob.spellings[0] != "--cors-origins"]
    assert words[1:] == ["5800" if word == "8080" else word for word in words_of(knobs)]


def swapped(command: str) -> list[str]:
    """The words llama-swap starts: comment lines go, macros are filled in, the rest is split as a shell does."""
    lines = [line for line in command.split("\n") if not line.strip().startswith("#")]
    assert not any(line.strip().endswith("\\") for line in lines), "llama-swap would take the backslash away"
    return shlex.split("\n".join(lines).replace("${PORT}", "5800"))


def test_llama_swap_keeps_the_key_and_offers_other_samplings() -> None:
    request = request_of(full_gpu(), api_key_file="/etc/key")
    exported = export("llama-swap", request)
    document = load(exported.text)
    assert document["apiKeys"] == ["${env.GLMPLAN_API_KEY}"]
    (model,) = document["models"].values()
    assert "--api-key-file" not in model["cmd"]
    profiles = model["filters"]["setParamsByID"]
    assert profiles["${MODEL_ID}:tools"]["temperature"] == 0.7
    assert profiles["${MODEL_ID}:nothink"] == {"chat_template_kwargs": {"enable_thinking": False}}
    assert model["capabilities"]["context"] == 65536


WRONG: list[tuple[str, str, str]] = [
    ("systemd", "x=1\n", "no unit"),
    ("systemd", "[Service]\nType=exec\n", "no unit"),
    ("systemd", "[Service]\nExecStart=/bin/x --model %q\n", "unknown specifier %q"),
    ("systemd", "[Service]\nExecStart=/bin/x --model $HOME\n", "a variable in"),
    ("systemd", '[Service]\nExecStart=/bin/x "--model\n', "a quote is not closed"),
    ("systemd", "[Service]\nExecStart=/bin/x --mlock\n", "no option --mlock"),
    ("launchd", "<plist>", "no agent"),
    ("quadlet", "[Container]\nImage=x\n", "no quadlet"),
    ("quadlet", "[Container]\nExec=--port 1\nVolumes=/a:/b\n", "no key Volumes in section Container"),
    ("compose", "services: {llama-server: {imagine: x}}\n", "'imagine'"),
    ("compose", "a: [\n", "expected"),
    ("compose", "services: {llama-server: {image: x, command: [--mlock]}}\n", "no option --mlock"),
    ("llama-swap", "models: {a: {name: b}}\n", "'cmd' is missing"),
    ("llama-swap", "models: {a: {cmd: x, colour: red}}\n", "'colour'"),
    ("llama-swap", 'models: {a: {cmd: "x --model ${DIR}/a"}}\n', "unknown macro ${DIR}"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_the_checks_refuse_what_is_wrong(name: str, text: str, said: str) -> None:
    report = check(name, Exported(text=text, suffix=""), Tools())
    assert any(said in problem for problem in report.problems), report


def test_the_plan_of_a_windows_path_is_mounted_by_its_folder() -> None:
    request: Any = request_of(with_file(full_gpu(), r"C:\models\x.gguf"))
    service = load(export("compose", request).text)["services"]["llama-server"]
    assert service["volumes"][0]["source"] == "C:\\models"
    assert "/models/x.gguf" in service["command"]
