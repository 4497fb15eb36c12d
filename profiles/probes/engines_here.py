"""Every inference tool on the machine, launchable by glmplan or not, with its version."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from glmplan.engine import Engine
from glmplan.machine import EngineFound
from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.engine_places import Places
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.other_servers import IK_VERSION


@noun
class _Tool:
    """How a tool is called and how it says its version."""

    kind: str
    arguments: tuple[str, ...] | None
    pattern: str = r"(\d+\.\d+[\w.+-]*)"


_TOOLS: Final = {
    "llama-bench": _Tool(kind="llama-bench", arguments=None),
    "llama-fit-params": _Tool(kind="llama-fit-params", arguments=None),
    "llama-cli": _Tool(kind="llama-cli", arguments=None),
    "llama-swap": _Tool(kind="llama-swap", arguments=("-version",), pattern=r"version:?\s+(\S+)"),
    # The daemon's version counts: `ollama version is X`, or `client version is X` while no daemon runs.
    "ollama": _Tool(kind="ollama", arguments=("--version",), pattern=r"version is (\S+)"),
    "ik-llama-server": _Tool(kind="ik_llama.cpp", arguments=("--version",), pattern=IK_VERSION.pattern),
    "lms": _Tool(kind="lm-studio", arguments=None),
    "docker": _Tool(kind="docker", arguments=("--version",)),
    "podman": _Tool(kind="podman", arguments=("--version",)),
    "ramalama": _Tool(kind="ramalama", arguments=("version",)),
    "koboldcpp": _Tool(kind="koboldcpp", arguments=None),
    "llamafile": _Tool(kind="llamafile", arguments=("--version",)),
    "local-ai": _Tool(kind="local-ai", arguments=("--version",)),
    "gpustack": _Tool(kind="gpustack", arguments=None),
    "jan": _Tool(kind="jan", arguments=None),
    # Python programs take seconds to start: their packages, where this interpreter has them, say the version.
    "vllm": _Tool(kind="vllm", arguments=None),
    "sglang": _Tool(kind="sglang", arguments=None),
    "mlx_lm.server": _Tool(kind="mlx-lm", arguments=None),
    "lmdeploy": _Tool(kind="lmdeploy", arguments=None),
    "ray": _Tool(kind="ray", arguments=None),
}


def list_engines(host: Host, places: Places, launchable: tuple[Engine, ...], notes: Notes) -> tuple[EngineFound, ...]:
    """Launchable engines first, best first; then the others by name."""
    found = [
        EngineFound(kind=engine.kind.value, path=engine.path, version=engine.version, build=engine.build,
                    backends=engine.backends)
        for engine in launchable
    ]  # fmt: skip
    known = {engine.kind for engine in found}
    if "llama-server" in places.programs and "llama-server" not in known:
        path = places.programs["llama-server"]
        notes.add("engines", f"{path} does not start: {_last_words(host, path)}", "reinstall it, or take it off PATH")
    programs = [(name, path) for name, path in sorted(places.programs.items()) if name in _TOOLS]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found.extend(pool.map(_asker(host, places, notes), programs))
    seen = {engine.kind for engine in found}
    found.extend(
        EngineFound(kind=name, path=package.path, version=package.version, build=None)
        for name, package in sorted(places.packages.items())
        if name not in seen
    )
    return tuple(found)


def _asker(host: Host, places: Places, notes: Notes) -> Callable[[tuple[str, str]], EngineFound]:
    def ask(entry: tuple[str, str]) -> EngineFound:
        name, path = entry
        tool = _TOOLS[name]
        package = places.packages.get(tool.kind)
        version = package.version if package else None
        if tool.arguments is not None and version is None:
            done = host.run([path, *tool.arguments], remember_for=None if name == "ollama" else path)
            match = re.search(tool.pattern, done.stdout + done.stderr)
            version = match[1].rstrip(",") if match else None
            if version is None:
                notes.add(
                    f"engines.{tool.kind}.version",
                    f"{path} {' '.join(tool.arguments)}: {done.why or 'no version printed'}",
                )
        return EngineFound(kind=tool.kind, path=path, version=version, build=None)

    return ask


def _last_words(host: Host, program: str) -> str:
    done = host.run([program, "--version"], remember_for=program)
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return done.why or (lines[-1] if lines else f"it ended with {done.returncode}")
