"""Shell scripts and systemd's files, judged by shellcheck and systemd-analyze themselves."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from export_plans import PLANS, full_gpu, request_of

from glmplan.errors import NotExpressible
from glmplan.launchers.export.checks.report import CheckReport, Tools, ask
from glmplan.launchers.export.exported import Exported
from glmplan.launchers.export.formats import check, export

pytestmark = pytest.mark.judges

SHELL = ("script", "llama-server", "llama-server-env", "ollama-env", "ollama-launchctl", "lms-load", "mlx-lm", "vllm",
         "sglang", "openai-env", "claude-code")  # fmt: skip
# Variables are for whoever reads the file (SC2034); a key file that cannot be read must not end the shell (SC2155).
LET_PASS = "SC2034,SC2155"


def judge(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"apt-get install {'shellcheck' if name == 'shellcheck' else 'systemd'}"
    return path


def shellcheck(text: str, folder: Path) -> tuple[str, ...]:
    path = folder / "exported.sh"
    path.write_text(text, encoding="utf-8")
    return ask([judge("shellcheck"), "--shell=sh", "--severity=warning", f"--exclude={LET_PASS}", str(path)]).problems()


def by(name: str, program: str, exported: Exported) -> CheckReport:
    """What the export's own check says when it has just this program."""
    return check(name, exported, Tools(programs={program: judge(program)}))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", SHELL)
def test_shellcheck_has_nothing_against_what_a_shell_will_read(name: str, plan: str, tmp_path: Path) -> None:
    try:
        text = export(name, request_of(PLANS[plan](), api_key_file="/etc/a 'key' file")).text
    except NotExpressible:
        assert name in {"mlx-lm", "vllm", "sglang"}  # these take no plan with experts in main memory
        return
    assert shellcheck(text, tmp_path) == ()


def test_shellcheck_is_asked_by_the_check_of_the_script() -> None:
    exported = export("script", request_of(full_gpu(), api_key_file="/etc/a 'key' of $USER"))
    assert "shellcheck" in by("script", "shellcheck", exported).by
    assert by("script", "shellcheck", exported).problems == ()
    spoilt = replace(exported, text=exported.text + 'rm -rf "$nowhere/"*\n[ $1 == 2 ]\n')
    assert by("script", "shellcheck", spoilt).problems != ()


@pytest.mark.parametrize("plan", PLANS)
def test_systemd_verifies_the_unit(plan: str) -> None:
    exported = export("systemd", request_of(PLANS[plan](use_mlock=True), server="/bin/true", api_key_file="/etc/key"))
    report = by("systemd", "systemd-analyze", exported)
    assert report.by[0] == "systemd-analyze verify"
    assert report.problems == ()
    for there, instead in (("OOMPolicy=", "OOMPolice="), ("Type=exec", "Type=exact")):
        assert by("systemd", "systemd-analyze", replace(exported, text=exported.text.replace(there, instead))).problems


@pytest.mark.parametrize("plan", PLANS)
def test_systemd_verifies_the_variables_of_ollama(plan: str, tmp_path: Path) -> None:
    drop_in = export("ollama-systemd", request_of(PLANS[plan]()))
    (tmp_path / "ollama.service.d").mkdir()
    unit = tmp_path / "ollama.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    for text, accepted in ((drop_in.text, True), (drop_in.text.replace("Environment=OLLAMA_HOST", "Environ=X"), False)):
        (tmp_path / "ollama.service.d" / "glmplan.conf").write_text(text, encoding="utf-8")
        said = ask([judge("systemd-analyze"), "verify", str(unit)], env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
        assert ("glmplan.conf" not in said.stderr) is accepted, said
