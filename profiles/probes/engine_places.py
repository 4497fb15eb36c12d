"""Where engines may be: programs on PATH and beside this interpreter, packages this interpreter can import."""

import importlib.metadata
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glmplan.errors import JsonValue
from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import fields, text

PROGRAMS: Final = (
    "llama-server", "ik-llama-server", "llama-bench", "llama-fit-params", "llama-cli", "llama-swap", "ollama", "lms",
    "docker", "podman", "ramalama", "koboldcpp", "llamafile", "local-ai", "gpustack", "vllm", "sglang",
    "mlx_lm.server", "lmdeploy", "jan", "ray",
)  # fmt: skip
PACKAGES: Final = {
    "llama-cpp-python": "llama_cpp", "xllamacpp": "xllamacpp", "mlx-lm": "mlx_lm", "vllm": "vllm", "sglang": "sglang",
    "lmdeploy": "lmdeploy", "ray": "ray", "tabbyapi": "tabbyapi", "exllamav3": "exllamav3",
    "ktransformers": "ktransformers",
}  # fmt: skip
_NAMED_BY: Final = {"llama-server": "GLMPLAN_LLAMA_SERVER", "ik-llama-server": "GLMPLAN_IK_LLAMA_SERVER"}
_FOLDERS: Final = (
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/app",
    "~/.local/bin",
    "~/.lmstudio/bin",
    "~/llama.cpp/build/bin",
)
_APPLICATIONS: Final = {
    "ollama": "/Applications/Ollama.app/Contents/Resources/ollama",
    "lms": "~/.cache/lm-studio/bin/lms",
}


@noun
class Package:
    """An installed distribution, found without importing it."""

    version: str | None
    path: str


@noun
class Places:
    """Programs by name (the first found of each) and packages by distribution name."""

    programs: Mapping[str, str]
    packages: Mapping[str, Package]


def collect(env: Mapping[str, str]) -> JsonValue:
    """Programs and packages as JSON; nothing is started or imported."""
    site_packages = sysconfig.get_path("purelib")
    folders = [
        Path(site_packages, "bin"),
        Path(sysconfig.get_path("scripts")),
        *(Path(name).expanduser() for name in _FOLDERS),
    ]
    programs: dict[str, JsonValue] = {}
    for name in PROGRAMS:
        found = _program(name, folders, env.get("PATH"))
        if found:
            programs[name] = found
    for name, variable in _NAMED_BY.items():
        if chosen := env.get(variable):
            programs[name] = chosen
    packages: dict[str, JsonValue] = {}
    for distribution, module in PACKAGES.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        packages[distribution] = {"version": version, "path": str(Path(site_packages, module))}
    return {"programs": programs, "packages": packages}


def _program(name: str, folders: list[Path], path: str | None) -> str | None:
    if found := shutil.which(name, path=path):
        return found
    places = [folder / name for folder in folders]
    if name in _APPLICATIONS:
        places.append(Path(_APPLICATIONS[name]).expanduser())
    return next((str(place) for place in places if place.is_file()), None)


def read_places(host: Host) -> Places:
    """Where engines are on `host`."""
    answer = fields(host.call("engine_places", lambda: collect(host.env)))
    packages = {
        name: Package(version=text(entry.get("version")), path=path)
        for name, entry in ((name, fields(entry)) for name, entry in fields(answer.get("packages")).items())
        if (path := text(entry.get("path")))
    }
    programs = {name: path for name, path in fields(answer.get("programs")).items() if isinstance(path, str) and path}
    return Places(programs=programs, packages=packages)
