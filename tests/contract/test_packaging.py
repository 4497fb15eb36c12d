"""pyproject's package table, the folders and the links describe the same tree; importing glmplan is light."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("planner", "profiles", "launchers")


def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    return table


def packages_on_disk() -> set[str]:
    own = {
        ".".join(("glmplan", *init.parent.relative_to(ROOT / "glmplan").parts))
        for init in (ROOT / "glmplan").rglob("__init__.py")
        if init.parent.relative_to(ROOT / "glmplan").parts[:1] not in {(folder,) for folder in FOLDERS}
    }
    verbs = {
        ".".join(("glmplan", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    return own | verbs


def test_every_package_folder_is_listed() -> None:
    assert packages_on_disk() == set(setuptools_table()["packages"])


def test_every_folder_with_code_is_a_package() -> None:
    for folder in (*FOLDERS, "glmplan"):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_every_data_file_is_shipped() -> None:
    shipped = setuptools_table()["package-data"]
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".yaml", ".jinja", ".json"}:
                package = ".".join(("glmplan", *path.parent.relative_to(ROOT).parts))
                assert any(path.match(pattern) for pattern in shipped.get(package, ())), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_link_points_at_its_folder(folder: str) -> None:
    link = ROOT / "glmplan" / folder
    assert link.is_symlink(), "static tools need the links: clone with core.symlinks=true"
    assert link.resolve() == ROOT / folder


def test_no_module_is_longer_than_a_room() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for folder in (*FOLDERS, "glmplan", "tests", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > 400
    }
    assert too_long == {}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_glmplan_loads_no_third_party() -> None:
    third_party = {"pydantic", "yaml", "psutil", "httpx", "rich", "typer", "numpy", "gguf", "platformdirs", "pynvml"}
    nouns = "import glmplan.plan, glmplan.machine, glmplan.measurement, glmplan.jsonio, glmplan.paths"
    assert not loaded_by(nouns) & third_party


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = {"pydantic", "psutil", "httpx", "rich", "numpy", "gguf", "pynvml", "cpuinfo", "xllamacpp", "llama_cpp"}
    assert not loaded_by("import glmplan.cli") & heavy
