"""Why engines die: real last lines of llama-server, xllamacpp and llama-cpp-python, one cause each."""

import signal

import pytest

from glmplan.launchers.failures import Cause, classify, exited, how

# Printed by llama.cpp 0c1e570 (llama-server), b11549 (xllamacpp) and llama-cpp-python 0.3.36 when provoked.
SAMPLES = [
    (Cause.PORT_TAKEN, 1, "E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18194"),
    (
        Cause.PORT_TAKEN,
        1,
        "[Errno 98] error while attempting to bind on ('127.0.0.1', 1): address already in use",
    ),
    (Cause.MODEL_MISSING, 1, "E gguf_init_from_file: failed to open GGUF file 'x' (No such file or directory)"),
    (Cause.MODEL_MISSING, 1, "ValueError: Model path does not exist: x.gguf"),
    (Cause.MODEL_BROKEN, 1, "E gguf_init_from_reader: failed to read key-value pairs"),
    (
        Cause.MODEL_BROKEN,
        1,
        "error loading model: tensor 'blk.2.attn_k_b.weight' data is not within the file bounds, model is corrupted",
    ),
    (Cause.OUT_OF_MEMORY, 1, "E llama_init_from_model: failed to initialize the context: std::bad_alloc"),
    (
        Cause.OUT_OF_MEMORY,
        1,
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4.00 MiB on device 1: cudaMalloc failed: out of memory",
    ),
    (
        Cause.REFUSED_SETTING,
        1,
        "E llama_init_from_model: model does not support different K (q8_0) and V (f16)",
    ),
    (Cause.BAD_ARGUMENT, 1, "error: invalid argument: --mlock"),
    (Cause.AMX, -6, "ggml/src/ggml-backend.cpp:1294: GGML_ASSERT(*cur_backend_id != -1) failed"),
    (Cause.NOT_INSTALLED, 127, "error while loading shared libraries: libllama.so: No such file or directory"),
    (Cause.NOT_INSTALLED, 1, "/usr/bin/python: No module named llama_cpp"),
]


@pytest.mark.parametrize(("cause", "code", "line"), SAMPLES)
def test_words_tell_the_cause(cause: Cause, code: int, line: str) -> None:
    lines = [
        "0.00.1 I srv llama_server: initializing ...",
        line,
        "E srv  llama_server: exiting due to model loading error",
    ]
    failure = classify(code, lines)
    assert (failure.cause, failure.line) == (cause, line)


def test_out_of_memory_names_the_device() -> None:
    gpu = classify(1, ["allocating 1.00 MiB on device 1: cudaMalloc failed: out of memory"])
    assert gpu.device == "gpu1"
    named = classify(1, ["alloc_tensor_range: failed to allocate CUDA0 buffer of size 1073741824"])
    assert named.device == "gpu0"
    metal = classify(1, ["ggml_metal_buffer: Metal buffer: failed to allocate buffer, size = 8192.00 MiB"])
    assert metal.device == "gpu0"
    pinned = classify(1, ["ggml_cuda_host_malloc: failed to allocate 192.00 MiB of pinned memory: out of memory"])
    assert pinned.device == "host"
    host = classify(1, ["failed to initialize the context: std::bad_alloc"])
    assert host.device == "host"


@pytest.mark.parametrize(
    ("code", "kills", "cause"),
    [
        (-signal.SIGKILL, 1, Cause.OUT_OF_MEMORY),
        (-signal.SIGKILL, None, Cause.OUT_OF_MEMORY),
        (-signal.SIGKILL, 0, Cause.KILLED),
        (-signal.SIGTERM, 0, Cause.STOPPED),
        (0, 0, Cause.STOPPED),
        (-signal.SIGILL, 0, Cause.WRONG_CPU),
        (3, 0, Cause.UNKNOWN),
    ],
)
def test_without_words_the_status_tells_and_the_kernel_counts(code: int, kills: int | None, cause: Cause) -> None:
    assert classify(code, ["all is well"], oom_kills=kills).cause is cause


def test_the_error_says_what_happened_and_what_to_do() -> None:
    lines = [f"line {number}" for number in range(40)] + ["std::bad_alloc"]
    error = exited(classify(1, lines), lines, log="/logs/a.log", when="while loading")
    assert (
        error.message == "the engine ended while loading: it ran out of memory on host (exit status 1): std::bad_alloc"
    )
    assert "--n-ctx" in error.hint
    assert "/logs/a.log" in error.hint
    assert error.facts["cause"] == "out-of-memory"
    tail = error.facts["log_tail"]
    assert isinstance(tail, list)
    assert (len(tail), tail[-1]) == (20, "std::bad_alloc")


def test_exit_statuses_in_words() -> None:
    assert how(1) == "exit status 1"
    assert how(-9) == "signal 9, SIGKILL"
    assert how(-99) == "signal 99"
