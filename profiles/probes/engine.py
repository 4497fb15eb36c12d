"""The engines glmplan can launch, and what each very build can do; best first."""

import mmap
import re
from pathlib import Path, PurePosixPath
from typing import Final

from glmplan.engine import Engine, EngineKind
from glmplan.errors import JsonValue
from glmplan.noun import noun
from glmplan.profiles import answers
from glmplan.profiles.host import Host
from glmplan.profiles.probes.engine_places import Package, Places, read_places
from glmplan.profiles.probes.json_fields import digits

# Old: `version: 8123 (abc1234)`. New: `version: 0.5.0-dev (build 1, commit 0c1e570)`. Both on stderr.
_NEW: Final = re.compile(r"^version:\s*(\S+)\s+\(build (\d{1,9}), commit (\w+)\)", re.MULTILINE)
_OLD: Final = re.compile(r"^version:\s*(\d{1,9})\s+\((\w+)\)", re.MULTILINE)
_OPTION: Final = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_LIBRARY: Final = re.compile(r"(?:lib)?ggml-([a-z]+)[\w.-]*\.(?:so|dylib|dll)[\d.]*")
_DEVICE: Final = re.compile(r"^\s+([A-Za-z]+)(\d+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$", re.MULTILINE)
_BACKEND_OF_DEVICE: Final = {
    "cuda": "cuda",
    "mtl": "metal",
    "metal": "metal",
    "vulkan": "vulkan",
    "rocm": "hip",
    "sycl": "sycl",
}
_SYMBOLS: Final = {
    "cpu": b"ggml_backend_cpu_reg", "cuda": b"ggml_backend_cuda_reg", "vulkan": b"ggml_backend_vk_reg",
    "metal": b"ggml_backend_metal_reg", "sycl": b"ggml_backend_sycl_reg",
}  # fmt: skip


@noun
class ListedDevice:
    """One line of `llama-server --list-devices`; sizes in MiB as printed."""

    backend: str
    index: int
    name: str
    total_mib: int
    free_mib: int


def find_engines(host: Host, places: Places | None = None) -> tuple[Engine, ...]:
    """The engines glmplan can launch on `host`, best first: llama-server, llama-cpp-python, xllamacpp."""
    known = places or read_places(host)
    found: list[Engine] = []
    if program := known.programs.get("llama-server"):
        server = read_llama_server(host, program)
        if server is not None:
            found.append(server)
    if package := known.packages.get("llama-cpp-python"):
        backends = _backends_in(host, f"{package.path}/lib")
        found.append(
            Engine(kind=EngineKind.LLAMA_CPP_PYTHON, path=package.path, version=package.version, backends=backends)
        )
    if package := known.packages.get("xllamacpp"):
        found.append(_xllamacpp(host, package))
    return tuple(found)


def read_llama_server(host: Host, program: str) -> Engine | None:
    """What the `llama-server` at `program` is and can do; None when it does not start."""
    library_path = _library_path(host, program)
    bare = Engine(kind=EngineKind.LLAMA_SERVER, path=program, version=None, library_path=library_path)
    env = _libraries(bare)
    done = host.run([program, "--version"], remember_for=program, env=env)
    version, build, commit = parse_version(done.stderr + done.stdout)
    if not done.ok and version is None:
        return None
    listed = host.run([program, "--help"], remember_for=program, env=env)
    backends = _backends_in(host, library_path or str(PurePosixPath(program).parent))
    devices: tuple[ListedDevice, ...] = ()
    if not backends:  # a static build: its devices tell what it was built for
        devices = list_devices(host, bare)
        backends = tuple(sorted({"cpu", *(device.backend for device in devices)}))
    return Engine(
        kind=bare.kind, path=program, version=version, build=build, commit=commit, backends=backends,
        flags=parse_options(listed.stdout), library_path=library_path,
        devices=tuple(f"{device.backend}{device.index}: {device.name}" for device in devices),
    )  # fmt: skip


def parse_version(printed: str) -> tuple[str | None, str | None, str | None]:
    """Version, build number and commit from what `--version` printed, in either format."""
    if new := _NEW.search(printed):
        return new[1], new[2], new[3]
    if old := _OLD.search(printed):
        return f"b{old[1]}", old[1], old[2]
    return None, None, None


def parse_options(printed: str) -> frozenset[str]:
    """Options, long and short, at the beginning of the lines of `--help`."""
    found: set[str] = set()
    for line in printed.splitlines():
        if line.startswith("-") and not line.startswith("-----"):
            # Options are separated by commas; the description begins after two spaces that follow a letter.
            head = re.split(r"(?<=[\w\]>)}'.])\s{2,}(?!--)", line, maxsplit=1)[0]
            found.update(_OPTION.findall(head))
    return frozenset(found)


def list_devices(host: Host, engine: Engine) -> tuple[ListedDevice, ...]:
    """Devices this build of llama-server sees now."""
    done = host.run([engine.path, "--list-devices"], env=_libraries(engine))
    return tuple(
        ListedDevice(backend=_BACKEND_OF_DEVICE.get(match[1].lower(), match[1].lower()), index=int(match[2]),
                     name=match[3], total_mib=int(match[4]), free_mib=int(match[5]))
        for match in _DEVICE.finditer(done.stdout + "\n" + done.stderr)
        if len(match[4]) < 10 and len(match[5]) < 10 and len(match[2]) < 4
    )  # fmt: skip


def _libraries(engine: Engine) -> dict[str, str]:
    """Where the program's shared libraries are; each system reads its own variable and ignores the other's."""
    if engine.library_path is None:
        return {}
    return {"DYLD_LIBRARY_PATH": engine.library_path, "LD_LIBRARY_PATH": engine.library_path}


def _library_path(host: Host, program: str) -> str | None:
    """`../lib` beside a program's folder when ggml's libraries are there: wheels install them so."""
    folder = str(PurePosixPath(program).parent.parent / "lib")
    return folder if any(_LIBRARY.fullmatch(name) for name in host.folder(folder)) else None


def _backends_in(host: Host, folder: str) -> tuple[str, ...]:
    """Backends whose libraries are in `folder`: `libggml-cuda.so` is `cuda`."""
    names = {match[1] for name in host.folder(folder) if (match := _LIBRARY.fullmatch(name))}
    return tuple(sorted(names - {"base"}))


def _xllamacpp(host: Host, package: Package) -> Engine:
    """Its version ends in llama.cpp's build number: 2026.10.11549."""
    last = (package.version or "").split("+")[0].rpartition(".")[2]
    build = last if (digits(last) or 0) > 1000 else None
    found = host.call("xllamacpp", lambda: _backends_inside(package.path))
    backends = tuple(sorted(str(name) for name in found)) if isinstance(found, list) else ()
    return Engine(kind=EngineKind.XLLAMACPP, path=package.path, version=package.version, build=build, backends=backends)


def _backends_inside(folder: str) -> JsonValue:
    """Backends linked into xllamacpp's one library, by their registration symbols; remembered per file."""
    library = next((path for path in sorted(Path(folder).glob("xllamacpp*.so"))), None)
    if library is None:
        return None
    key = answers.key_of(["symbols"], str(library))
    if key and (known := answers.recall(key)):
        return list(known.stdout.split())
    try:
        with library.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = [name for name, symbol in _SYMBOLS.items() if content.find(symbol) >= 0]
    except (OSError, ValueError):
        return None
    if key:
        answers.keep(key, answers.Answer(returncode=0, stdout=" ".join(found), stderr=""))
    return list(found)
