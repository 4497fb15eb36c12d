"""The child process of an xllamacpp launch: `python -m glmplan.launchers.xllamacpp_server CONFIG.json`.

Builds `CommonParams` from the configuration, hosts llama.cpp's own server on its port, and stays until SIGTERM or
SIGINT. It is a process of its own so that an abort inside llama.cpp ends a launch and not glmplan. llama.cpp logs
to standard error.
"""

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

from glmplan.launchers.launch import first_key

_LOG_TRACE: Final = 4  # the level that prints buffer sizes (llama.cpp common/log.h)
_LOAD_MODES: Final = {"none": "NONE", "mmap": "MMAP", "mlock": "MLOCK", "mmap+mlock": "MMAP_MLOCK"}
_FLASH_ATTENTION: Final = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}
_SAMPLING_BITS: Final = {"temp": "TEMP", "top_p": "TOP_P", "min_p": "MIN_P", "penalty_repeat": "PENALTY_REPEAT"}
_PLAIN: Final = ("n_ctx", "n_parallel", "kv_unified", "n_batch", "n_ubatch", "n_gpu_layers", "load_mtp",
                 "cache_ram_mib", "port")  # fmt: skip


def _library() -> Any:  # noqa: ANN401 - the library has no types
    return importlib.import_module("xllamacpp")


def common_params(config: dict[str, Any]) -> Any:  # noqa: ANN401 - the library has no types
    """The library's `CommonParams` with every knob of `config` pinned and nothing left to `fit`."""
    xllamacpp = _library()
    params = xllamacpp.CommonParams()
    params.fit_params = False
    params.model.path = config["model"]
    params.model_alias = {config["alias"]}
    params.hostnames = [config["host"]]
    for name in _PLAIN:
        setattr(params, name, config[name])
    params.cpuparams.n_threads = config["n_threads"]
    params.cpuparams_batch.n_threads = config["n_threads_batch"]
    params.tensor_buft_overrides = config["override_tensor"]
    shares = config["tensor_split"]
    params.tensor_split = shares + [0.0] * (len(params.tensor_split) - len(shares))
    for name in ("cache_type_k", "cache_type_v"):
        setattr(params, name, getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config[name].upper()}"))
    attention = _FLASH_ATTENTION[config["flash_attn"]]
    params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
    params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{_LOAD_MODES[config['load_mode']]}")
    params.no_extra_bufts = not config["repack"]
    params.no_op_offload = not config["op_offload"]
    if config["numa"] is not None:
        params.numa = getattr(xllamacpp.ggml_numa_strategy, f"GGML_NUMA_STRATEGY_{config['numa'].upper()}")
    if config["load_mtp"]:
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
        params.speculative.draft.n_max = 1
    _set_sampling(params.sampling, config["sampling"])
    _set_service(params, config)
    return params


def _set_sampling(sampling: Any, wanted: dict[str, float]) -> None:  # noqa: ANN401 - the library has no types
    """The user's defaults, marked as such: otherwise the file's own metadata would replace them."""
    known = _library().common_params_sampling_config
    bits = 0
    for name, value in wanted.items():
        setattr(sampling, name, value)
        bits |= int(getattr(known, f"COMMON_PARAMS_SAMPLING_CONFIG_{_SAMPLING_BITS[name]}"))
    sampling.user_sampling_config = bits


def _set_service(params: Any, config: dict[str, Any]) -> None:  # noqa: ANN401 - the library has no types
    params.verbosity = _LOG_TRACE
    params.endpoint_metrics = True
    params.offline = True
    params.ui = False
    params.use_jinja = True
    params.cors_origins = "localhost"
    params.cors_origins_explicit = True
    if config["api_key_file"] is not None:
        key = first_key(Path(config["api_key_file"]))
        params.api_keys = [key] if key else []


def main(argv: list[str]) -> int:
    """Serve the configuration file named by the only argument."""
    try:
        library = _library()
    except ImportError as error:
        sys.stderr.write(f"xllamacpp cannot be loaded: {error}\n")
        return 127
    config = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    try:
        server = library.Server(common_params(config))
    except RuntimeError as error:
        # The engine has said why on standard error; its own last words stay last.
        sys.stderr.write(f"{error}\n")
        return 1
    _wait_for_signal()
    # The server holds no state worth saving, and its destructor would wait for streams that may last minutes.
    sys.stderr.write(f"stopped serving {server.listening_address}\n")
    sys.stderr.flush()
    os._exit(0)


def _wait_for_signal() -> None:
    """Sleep until SIGTERM or SIGINT, whichever thread the system hands it to."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _only_wake)
    reader.recv(1)


def _only_wake(_number: int, _frame: FrameType | None) -> None:
    """Python writes to the wakeup descriptor before it calls this; there is nothing more to do."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
