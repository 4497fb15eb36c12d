"""The compiled engine, as fixtures for tests that ask it for its own numbers (a pytest plugin)."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from glmplan.launchers.dry_run import DryRun
from glmplan.profiles.recipes import DEFAULT_MODEL, catalog_profile
from glmplan.profiles.synthetic import write_synthetic

ROOT = Path(__file__).parents[2]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # one script imports the other by its name
    spec.loader.exec_module(module)
    return module


def engine_headers_folder() -> Path:
    """ggml's headers of the compiled engine; scripts/build_engine.py keeps them beside the wheel."""
    headers: Path = _script("build_engine").engine_folder() / "ggml"
    assert headers.is_dir(), "run scripts/build_engine.py and install its wheel first"
    return headers


@pytest.fixture(scope="session")
def engine_headers() -> Path:
    """The same as a fixture."""
    return engine_headers_folder()


@pytest.fixture(scope="session")
def fake_gpu(engine_headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backend of a GPU that is not there, compiled against the engine's own headers."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None, "these tests need llama-cpp-python: pip install the wheel of scripts/build_engine.py"
    assert spec.origin is not None
    library = Path(spec.origin).parent / "lib"
    out = tmp_path_factory.mktemp("oracle") / "libggml-fake-gpu.so"
    source = ROOT / "tests" / "oracle" / "fake_gpu.cpp"
    subprocess.run(
        ["c++", "-O1", "-std=c++17", "-fPIC", "-shared", f"-I{engine_headers}", str(source), f"-L{library}",
         "-lggml-base", "-lggml", "-lggml-cpu", "-o", str(out)],
        check=True, timeout=120,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def engine_on(fake_gpu: Path) -> Callable[[str], AbstractContextManager[DryRun]]:
    """The engine with imagined GPUs: `total:free` MiB each, comma-separated; none with an empty text."""

    @contextmanager
    def start(gpus: str) -> Generator[DryRun]:
        extra = {"GLMPLAN_GGML_BACKEND": str(fake_gpu), "GLMPLAN_FAKE_GPU_MIB": gpus} if gpus else {}
        with DryRun(sys.executable, extra) as run:
            yield run

    return start


@pytest.fixture(scope="session")
def header_true(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Sparse header-true files by quantisation, number of nextn blocks and model, written once."""
    folder = tmp_path_factory.mktemp("headers")

    def file_of(quant: str, n_nextn_layers: int = 0, model: str = DEFAULT_MODEL) -> Path:
        path = folder / f"{model}-{quant}-{n_nextn_layers}.gguf"
        if not path.exists():
            profile = catalog_profile(quant, model=model, n_nextn_layers=n_nextn_layers)
            write_synthetic(path, profile, tokenizer=False)
        return path

    return file_of


@pytest.fixture
def engine_programs() -> Path:
    """The folder of llama-server and its siblings in the compiled engine's environment."""
    folder = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    programs = folder / "bin"
    assert (programs / "llama-server").is_file(), "install the wheel of scripts/build_engine.py first"
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    return programs


@pytest.fixture(scope="session")
def ik_llama_server() -> Path:
    """The server of ik_llama.cpp, compiled."""
    _script("build_engine")
    program: Path = _script("build_ik_llama").program()
    assert program.is_file(), "run scripts/build_ik_llama.py first"
    return program
