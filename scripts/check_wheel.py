"""Check a built wheel: one top-level package, every data file in it, and it starts where only the wheel is.

python scripts/check_wheel.py dist/*.whl
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA_SUFFIXES = {".css", ".jinja", ".js", ".json", ".ps1", ".sh", ".typed", ".yaml"}


def main() -> None:
    """Check the wheel named on the command line."""
    wheel = Path(sys.argv[1])
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"glmplan"}, top
    for folder in ("planner", "profiles", "launchers", "glmplan"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            if path.suffix not in DATA_SUFFIXES or "__pycache__" in inside.parts or inside.parts[1:2] in LINKS:
                continue
            name = str(inside) if folder == "glmplan" else f"glmplan/{inside}"
            assert name in names, f"{name} is missing from the wheel"
    with tempfile.TemporaryDirectory() as target:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, str(wheel)]
        subprocess.run(pip, check=True)
        code = f"import sys; sys.path.insert(0, {target!r}); import glmplan; assert {target!r} in glmplan.__file__"
        code += "; from glmplan.profiles.recipes import catalog_profile; print(catalog_profile('q4_K_M').n_parameters)"
        subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=target)
    sys.stdout.write(f"{wheel.name}: {len(names)} files, top level {', '.join(top)}\n")


LINKS = (("planner",), ("profiles",), ("launchers",))

if __name__ == "__main__":
    main()
