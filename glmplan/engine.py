"""An inference engine as a planner and a launcher see it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from glmplan.noun import noun


class EngineKind(StrEnum):
    """Engines glmplan can launch, best first."""

    LLAMA_SERVER = "llama-server"
    LLAMA_CPP_PYTHON = "llama-cpp-python"
    XLLAMACPP = "xllamacpp"
    OLLAMA = "ollama"
    MLX_LM = "mlx-lm"
    IK_LLAMA = "ik_llama.cpp"

    @property
    def is_llama_cpp(self) -> bool:
        """Whether it is llama.cpp with every knob of a plan at hand; only such an engine is chosen unasked."""
        return self in _LLAMA_CPP

    @property
    def answers_as_llama_server(self) -> bool:
        """Whether its server tells of itself and of its own times as llama-server's does."""
        return self.is_llama_cpp or self is EngineKind.IK_LLAMA


_LLAMA_CPP: Final = frozenset({EngineKind.LLAMA_SERVER, EngineKind.LLAMA_CPP_PYTHON, EngineKind.XLLAMACPP})


@noun
class Engine:
    """One installed engine and what this very build can do.

    `flags` are the options its `--help` lists (empty: the kind has no command line of its own). `build` is
    llama.cpp's build number, `commit` its commit. `library_path` is the folder its shared libraries must be
    looked for in; None when the program finds them itself. `devices` are the names `--list-devices` printed.
    """

    kind: EngineKind
    path: str
    version: str | None
    build: str | None = None
    backends: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    commit: str | None = None
    library_path: str | None = None
    devices: tuple[str, ...] = ()


def engine_environment(engine: Engine, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to `environment` so that `engine` starts and counts GPUs as plans do.

    Shared libraries are looked for in `library_path`. CUDA counts in PCI order, as NVML and therefore `Machine.gpus`
    do; its own default is "fastest first".
    """
    added = {} if "CUDA_DEVICE_ORDER" in environment else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if engine.library_path is not None:
        # Both names are set: each system reads its own and ignores the other's.
        for name in ("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH"):
            added[name] = ":".join(part for part in (engine.library_path, environment.get(name)) if part)
    return added
