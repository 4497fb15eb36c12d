"""Compile llama-cpp-python and llama.cpp's own programs once per machine, and print the folder that holds them.

    python scripts/build_engine.py            # prints the folder; builds first when the cache has none
    pip install "$(python scripts/build_engine.py)"/*.whl

The folder holds the wheel (library, llama-server, llama-bench, llama-fit-params, llama-quantize, ggml-rpc-server) and
`ggml`, the headers the tests compile their oracle against. It is keyed by version and processor, because the build is
made for this very processor; GLMPLAN_ENGINE_CACHE moves it. Needs a C++ compiler and CMake.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

VERSION = "0.3.36"
CMAKE_ARGS = " ".join(
    f"-D{option}"
    for option in (
        "LLAMA_BUILD_TOOLS=ON",
        "LLAMA_BUILD_SERVER=ON",
        "LLAMA_TOOLS_INSTALL=ON",
        "GGML_RPC=ON",
        "LLAMA_BUILD_APP=OFF",
        "LLAMA_OPENSSL=OFF",
        "LLAVA_BUILD=OFF",  # tools and llava add the same folder twice otherwise
    )
)

PIP = (sys.executable, "-m", "pip")
# With AMX code this version aborts on the model's attention (ggml-backend.cpp:1294): docs/install.md.
WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def processor_features() -> str:
    """The processor's features as the kernel lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def compiler_flags() -> str:
    """What the compiler is told beside the build's own flags."""
    return WITHOUT_AMX if "amx_tile" in processor_features().split() else ""


def processor_key() -> str:
    """Eight digits that differ where a native build would."""
    key = f"{platform.machine()} {processor_features()} {CMAKE_ARGS} {compiler_flags()}"
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def engine_folder() -> Path:
    """Where this machine's build lives, whether it is there or not."""
    cache = os.environ.get("GLMPLAN_ENGINE_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "glmplan-engines"
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return root / f"llama-cpp-python-{VERSION}-{python}-{processor_key()}"


def build(folder: Path) -> None:
    """Download the source, compile, and move the result into place in one step."""
    missing = [tool for tool in ("cmake", "c++") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"error: compiling the engine needs {' and '.join(missing)}\n  try: apt-get install cmake g++")
    folder.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"compiling llama-cpp-python {VERSION} for this processor: 6 to 9 minutes on 2 cores\n")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        tree = unpacked(f"llama-cpp-python=={VERSION}", work)
        out = work / "engine"
        environment = {
            **os.environ,
            "CMAKE_ARGS": CMAKE_ARGS,
            "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2),
            "CFLAGS": compiler_flags(),
            "CXXFLAGS": compiler_flags(),
        }
        run([*PIP, "wheel", "-q", "--no-deps", "-w", str(out), str(tree)], environment)
        keep_headers(tree / "vendor" / "llama.cpp" / "ggml", out / "ggml")
        out.replace(folder)


def unpacked(requirement: str, work: Path) -> Path:
    """The source tree of a package, downloaded into `work`."""
    run([*PIP, "download", "-q", "--no-deps", "--no-binary", ":all:", requirement, "-d", str(work)])
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    (tree,) = (path for path in work.iterdir() if path.is_dir())
    return tree


def keep_headers(ggml: Path, target: Path) -> None:
    """The public headers and the backend interface's own."""
    target.mkdir(parents=True)
    for header in [*ggml.glob("include/*.h"), *ggml.glob("src/*.h")]:
        shutil.copy(header, target / header.name)


def run(argv: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a step; its output goes to stderr, a failure ends the build."""
    done = subprocess.run(argv, stdout=sys.stderr, env=environment, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(argv[:4])} ... ended with {done.returncode}")


def kept(target: Path, build_it: Callable[[Path], None]) -> None:
    """Build what is not there yet, and print where it is."""
    if not target.exists():
        build_it(target)
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    kept(engine_folder(), build)
