"""Compile ik_llama.cpp's server once per machine, and print where it is.

    export GLMPLAN_IK_LLAMA_SERVER=$(python scripts/build_ik_llama.py)

The source is the one packed with ik-llama-cpp-python, whose wheel has the library alone. One static program, kept in
the cache of `build_engine.py`, keyed by version and processor. Needs a C++ compiler and CMake.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from build_engine import compiler_flags, engine_folder, kept, processor_features, run, unpacked

VERSION: Final = "0.1.5"
OPTIONS: Final = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "GGML_NATIVE=ON",
    "LLAMA_CURL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
)
# The archive lacks what writes its build number: this stands in for it.
_BUILD_INFO: Final = f"""int LLAMA_BUILD_NUMBER = 1;
char const *LLAMA_COMMIT = "{VERSION.replace(".", "")}";
char const *LLAMA_COMPILER = "c++";
char const *LLAMA_BUILD_TARGET = "native";
"""


def program() -> Path:
    """Where this machine's server lives, whether it is there or not."""
    key = f"{processor_features()} {OPTIONS} {compiler_flags()}"
    digits = hashlib.sha256(key.encode()).hexdigest()[:8]
    return engine_folder().parent / f"ik_llama.cpp-{VERSION}-{digits}" / "ik-llama-server"


def build(target: Path) -> None:
    """Download the source, compile, and move the program into place in one step."""
    target.parent.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"compiling ik_llama.cpp of ik-llama-cpp-python {VERSION}: 6 to 9 minutes on 2 cores\n")
    with tempfile.TemporaryDirectory(dir=target.parent.parent) as name:
        work = Path(name)
        tree = unpacked(f"ik-llama-cpp-python=={VERSION}", work) / "vendor" / "ik_llama.cpp"
        (tree / "common" / "cmake").mkdir(exist_ok=True)
        (tree / "common" / "cmake" / "build-info-gen-cpp.cmake").touch()
        (tree / "common" / "build-info.cpp").write_text(_BUILD_INFO, "utf-8")
        compile_server(tree, work / "build")
        folder = work / "done"
        folder.mkdir()
        shutil.copy2(work / "build" / "bin" / "llama-server", folder / target.name)
        folder.replace(target.parent)


def compile_server(tree: Path, into: Path) -> None:
    """Its warnings are many and not ours."""
    flags = f"{compiler_flags()} -w".strip()
    options = [*OPTIONS, f"CMAKE_C_FLAGS={flags}", f"CMAKE_CXX_FLAGS={flags}"]
    run(["cmake", "-S", str(tree), "-B", str(into), *(f"-D{option}" for option in options)])
    jobs = str(os.cpu_count() or 2)
    run(["cmake", "--build", str(into), "--target", "llama-server", "-j", jobs])


if __name__ == "__main__":
    kept(program(), build)
