"""Why an engine died, read from its exit status and its last log lines."""

import re
import signal
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from glmplan.errors import EngineError, EngineExited, JsonValue
from glmplan.noun import noun

# Sources: messages seen from llama.cpp 0c1e570 and b11549 (gguf.cpp, llama-model-loader.cpp, server-http.cpp,
# llama-context.cpp, ggml-cuda.cu), uvicorn; the out-of-memory words are Ollama's (llm/status.go).
_OUT_OF_MEMORY: Final = (
    "out of memory", "out of device memory", "cudamalloc failed", "hipmalloc failed", "failed to allocate",
    "allocation failed", "insufficient memory", "erroroutofmemory", "erroroutofdevicememory", "std::bad_alloc",
    "cannot allocate memory", "unable to allocate", "memoryerror",
)  # fmt: skip
_DEVICE: Final = re.compile(r"on device (\d+)|\b(?:CUDA|Vulkan|ROCm|SYCL|MTL)(\d+)\b|\bMetal\b")
LOG_TAIL_LINES: Final = 20


class Cause(StrEnum):
    """What ended an engine."""

    PORT_TAKEN = "port-taken"
    MODEL_MISSING = "model-missing"
    MODEL_BROKEN = "model-broken"
    OUT_OF_MEMORY = "out-of-memory"
    BAD_ARGUMENT = "bad-argument"
    REFUSED_SETTING = "refused-setting"
    AMX = "amx"
    MODEL_LOST = "model-lost"
    MODEL_UNKNOWN = "model-unknown"
    DAEMON = "daemon"
    DISK_FULL = "disk-full"
    NOT_INSTALLED = "not-installed"
    WRONG_CPU = "wrong-cpu"
    KILLED = "killed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


_WORDS: Final[tuple[tuple[Cause, tuple[str, ...]], ...]] = (
    (Cause.PORT_TAKEN, ("couldn't bind http server socket", "address already in use")),
    (Cause.MODEL_UNKNOWN, ("no module named 'mlx_lm.models.",)),
    (Cause.NOT_INSTALLED, ("error while loading shared libraries", "cannot be loaded", "no module named",
                           "cannot start", "library not loaded")),
    # llama.cpp 0c1e570 on a CPU with AMX, rearranged weights, the model's attention (ggml-backend.cpp:1294).
    (Cause.AMX, ("ggml_assert(*cur_backend_id != -1)",)),
    (Cause.OUT_OF_MEMORY, _OUT_OF_MEMORY),
    (Cause.DISK_FULL, ("no space left on device", "not enough space on the disk")),
    (Cause.MODEL_MISSING, ("failed to open gguf file", "model path does not exist", "no such file or directory")),
    (
        Cause.MODEL_BROKEN,
        (
            "model is corrupted or incomplete", "gguf_init_from_", "invalid magic", "failed to read key-value pairs",
            "error loading model", "failed to load model from file", "tensor data is not within the file bounds",
            "exceeding the size of the file", "generation thread died: missing", "generation thread died: received",
        ),
    ),
    (
        Cause.REFUSED_SETTING,
        ("does not support different k", "requires flash_attn", "failed to initialize the context",
         "context type mtp requested", "is not supported for this model", "failed to create context"),
    ),
    (Cause.BAD_ARGUMENT, ("error: invalid argument", "error while handling argument", "extra inputs are not permitted",
                          "validation error", "error: unknown value", "error: unrecognized arguments")),
    # mlx-lm 0.32.2 server.py: whatever its thread of computation did not expect, while loading too.
    (Cause.MODEL_LOST, ("generation thread died:",)),
    (Cause.DAEMON, ("ollama at http", "ollama refused", "ollama serve ended", "serve did not come up")),  # ollama_child
)  # fmt: skip

# llama-server leaves with 0 after SIGTERM; 143 is what shells report for it.
_BY_STATUS: Final = {
    0: Cause.STOPPED, -signal.SIGTERM: Cause.STOPPED, 128 + signal.SIGTERM: Cause.STOPPED,
    -signal.SIGKILL: Cause.KILLED, -signal.SIGILL: Cause.WRONG_CPU,
}  # fmt: skip

_SENTENCES: Final = {
    Cause.PORT_TAKEN: ("its port was taken while it loaded", "choose another --port"),
    Cause.MODEL_MISSING: ("the model file is not there", "check the path, or plan again with --gguf PATH"),
    Cause.MODEL_BROKEN: (
        "it cannot read the model file",
        "the file is damaged, incomplete or of another kind: fetch it again",
    ),
    Cause.OUT_OF_MEMORY: (
        "it ran out of memory",
        "plan with less: --n-ctx smaller, --reserve larger, or another --quant; close what else holds memory",
    ),
    Cause.MODEL_UNKNOWN: ("this version does not know the model's architecture", "update the engine"),
    Cause.DISK_FULL: ("a disk is full", "make room there; Ollama keeps a copy of the file (OLLAMA_MODELS says where)"),
    Cause.DAEMON: ("Ollama did not go on with it", "ollama ps shows what the daemon has loaded"),
    Cause.MODEL_LOST: ("it stopped computing", "check the model's folder"),
    Cause.BAD_ARGUMENT: ("it does not accept its command line", "plan again for the engine that is installed"),
    Cause.REFUSED_SETTING: ("it refuses a setting of the plan", "plan again for this engine"),
    Cause.AMX: (
        "this build's code for AMX processors cannot run the model's attention on rearranged weights",
        "plan for llama-server (--no-repack) or xllamacpp, or compile without AMX (docs/install.md)",
    ),
    Cause.NOT_INSTALLED: ("it is not installed completely", "install the engine again"),
    Cause.WRONG_CPU: ("it was built for another processor (illegal instruction)", "install a build for this one"),
    Cause.KILLED: ("somebody killed it", "start it again"),
    Cause.STOPPED: ("it was asked to stop", "start it again"),
    Cause.UNKNOWN: ("it does not say why", "read the log"),
}


@noun
class Failure:
    """How an engine ended; `line` is the log line that says so, `device` the memory that ran out (`gpu0`, `host`)."""

    cause: Cause
    return_code: int | None
    line: str | None = None
    device: str | None = None


def classify(return_code: int | None, lines: Sequence[str], *, oom_kills: int | None = None) -> Failure:
    """Why an engine ended.

    Args:
        return_code: its exit status; negative is a signal; None if it stayed and had to be ended.
        lines: its last log lines.
        oom_kills: how many processes the kernel killed for want of memory while it ran; None if not known.
    """
    for cause, words in _WORDS:
        line = next((line for line in lines if any(word in line.lower() for word in words)), None)
        if line is not None:
            device = _device(line) if cause is Cause.OUT_OF_MEMORY else None
            return Failure(cause=cause, return_code=return_code, line=line.strip(), device=device)
    if return_code == -signal.SIGKILL and oom_kills != 0:
        return Failure(cause=Cause.OUT_OF_MEMORY, return_code=return_code, device="host")
    by_status = Cause.UNKNOWN if return_code is None else _BY_STATUS.get(return_code, Cause.UNKNOWN)
    return Failure(cause=by_status, return_code=return_code)


def exited(failure: Failure, lines: Sequence[str], *, log: str, when: str) -> EngineError:
    """The error of an engine that ended by itself `when` (such as "while loading")."""
    sentence, hint = _SENTENCES[failure.cause]
    where = f" on {failure.device}" if failure.device else ""
    message = f"the engine ended {when}: {sentence}{where} ({how(failure.return_code)})"
    if failure.line:
        message += f": {failure.line}"
    facts: dict[str, JsonValue] = {
        "cause": failure.cause.value,
        "return_code": failure.return_code,
        "device": failure.device,
        "line": failure.line,
        "log": log,
        "log_tail": list(lines[-LOG_TAIL_LINES:]),
    }
    return EngineExited(message, hint=f"{hint}; the log is {log}", facts=facts)


def how(return_code: int | None) -> str:
    """An exit status in words."""
    if return_code is None:
        return "its process stayed and was ended"
    if return_code >= 0:
        return f"exit status {return_code}"
    try:
        return f"signal {-return_code}, {signal.Signals(-return_code).name}"
    except ValueError:
        return f"signal {-return_code}"


def _device(line: str) -> str:
    match = _DEVICE.search(line)
    if match is None:
        return "host"
    return f"gpu{match[1] or match[2] or 0}"
