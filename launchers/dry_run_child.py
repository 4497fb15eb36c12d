"""The child of a dry run: llama.cpp through llama-cpp-python's ctypes, sizing everything and allocating nothing.

Reads one `DryRunRequest` as JSON per line, answers one `Breakdown` as JSON per line. A failed assertion inside
llama.cpp kills this process: that is why it is one. `GLMPLAN_GGML_BACKEND` names a backend library to load first,
`GLMPLAN_RPC_SERVERS` remote devices to use.

Sources: llama.cpp src/llama-ext.h (`llama_get_memory_breakdown`), common/fit.cpp:56-97 (`no_alloc` with load mode
none; host buffers), include/llama.h.
"""

import ctypes as c
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

# Struct layouts change between releases: the symbols and offsets below were checked with these.
TESTED_VERSIONS: Final = ("0.3.36",)
_BREAKDOWN: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_LOAD_MODE_NONE: Final = 0
# llama.h llama_context_type
_USUAL: Final = 0
_DRAFTING: Final = 1


class _Node(c.Structure):
    """A node of libstdc++'s red-black tree holding (buffer type, three sizes)."""


_Node._fields_ = [
    ("color", c.c_long),
    ("parent", c.POINTER(_Node)),
    ("left", c.POINTER(_Node)),
    ("right", c.POINTER(_Node)),
    ("key", c.c_void_p),
    ("model", c.c_size_t),
    ("context", c.c_size_t),
    ("compute", c.c_size_t),
]


class _Map(c.Structure):
    """libstdc++'s `std::map` by value."""

    _fields_ = (
        ("compare", c.c_void_p),
        ("color", c.c_long),
        ("root", c.POINTER(_Node)),
        ("leftmost", c.c_void_p),
        ("rightmost", c.c_void_p),
        ("count", c.c_size_t),
    )


class _Override(c.Structure):
    """`llama_model_tensor_buft_override`."""

    _fields_ = (("pattern", c.c_char_p), ("buffer_type", c.c_void_p))


class _Ggml:
    """The functions of libggml the dry run needs, with their types."""

    def __init__(self, libraries: list[c.CDLL]) -> None:
        self._libraries = libraries
        self.device_count = self._bind("ggml_backend_dev_count", c.c_size_t)
        self.device = self._bind("ggml_backend_dev_get", c.c_void_p, c.c_size_t)
        self.device_name = self._bind("ggml_backend_dev_name", c.c_char_p, c.c_void_p)
        self.device_type = self._bind("ggml_backend_dev_type", c.c_int, c.c_void_p)
        self.device_buffer_type = self._bind("ggml_backend_dev_buffer_type", c.c_void_p, c.c_void_p)
        self.cpu_buffer_type = self._bind("ggml_backend_cpu_buffer_type", c.c_void_p)
        self.buffer_type_name = self._bind("ggml_backend_buft_name", c.c_char_p, c.c_void_p)
        self.buffer_type_device = self._bind("ggml_backend_buft_get_device", c.c_void_p, c.c_void_p)
        self.buffer_type_is_host = self._bind("ggml_backend_buft_is_host", c.c_bool, c.c_void_p)
        self.load_backend = self._bind("ggml_backend_load", c.c_void_p, c.c_char_p)

    def _bind(self, name: str, result: Any, *arguments: Any) -> Any:  # noqa: ANN401 - ctypes
        for library in self._libraries:
            function = getattr(library, name, None)
            if function is not None:
                function.restype, function.argtypes = result, list(arguments)
                return function
        message = f"{name} is not exported by this build"
        raise RuntimeError(message)

    def add_rpc_servers(self, endpoints: str) -> None:
        """Make the devices of comma-separated `host:port` servers this program's own."""
        for endpoint in filter(None, endpoints.split(",")):
            add = self._bind("ggml_backend_rpc_add_server", c.c_void_p, c.c_char_p)
            register = self._bind("ggml_backend_register", None, c.c_void_p)
            register(add(endpoint.encode()))

    def gpus(self) -> dict[int, int]:
        """Ordinal of each GPU by its device pointer (type 1 is GPU, 2 an integrated one)."""
        pointers = [self.device(index) for index in range(self.device_count())]
        chosen = [pointer for pointer in pointers if self.device_type(pointer) in {1, 2}]
        return {pointer: ordinal for ordinal, pointer in enumerate(chosen)}

    def buffer_type(self, name: str) -> int:
        """Pointer of a buffer type by its device's name (`CPU`, `CUDA1`)."""
        if name == "CPU":
            return int(self.cpu_buffer_type())
        for index in range(self.device_count()):
            pointer = self.device(index)
            if self.device_name(pointer).decode() == name:
                return int(self.device_buffer_type(pointer))
        message = f"no device {name}"
        raise RuntimeError(message)


def _walk(node: Any) -> Iterator[Any]:  # noqa: ANN401 - ctypes pointers
    if node:
        yield from _walk(node.contents.left)
        yield node.contents
        yield from _walk(node.contents.right)


class DryRunner:
    """llama.cpp, loaded once, asked many times."""

    def __init__(self) -> None:
        """Import llama-cpp-python, silence it, load the extra backend if one is named."""
        lib: Any = _bindings()
        self._lib = lib
        self._last_error = ""
        library: Any = lib._lib  # noqa: SLF001 - the CDLL that the package itself opened
        siblings = sorted(Path(library._name).parent.glob("libggml*"))  # noqa: SLF001
        opened = [c.CDLL(str(path)) for path in siblings if path.suffix in {".so", ".dylib"}]
        self._ggml = _Ggml([library, *opened])
        self._log = lib.llama_log_callback(self._keep_error)
        lib.llama_log_set(self._log, c.c_void_p(0))
        backend = os.environ.get("GLMPLAN_GGML_BACKEND")
        if backend and not self._ggml.load_backend(backend.encode()):
            message = f"ggml cannot load the backend {backend}"
            raise RuntimeError(message)
        self._ggml.add_rpc_servers(os.environ.get("GLMPLAN_RPC_SERVERS", ""))
        lib.llama_backend_init()
        self._breakdown: Any = getattr(library, _BREAKDOWN)
        self._breakdown.restype, self._breakdown.argtypes = _Map, [c.c_void_p]

    def _keep_error(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == 4 and line:  # GGML_LOG_LEVEL_ERROR
            self._last_error = line

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The `Breakdown` of a `DryRunRequest`, both as JSON."""
        self._last_error = ""
        keep: list[object] = []
        model = self._lib.llama_model_load_from_file(request["model"].encode(), self._model_params(request, keep))
        if not model:
            return {"refusal": self._last_error or "the engine cannot load this file"}
        try:
            context = self._lib.llama_init_from_model(model, self._context_params(request))
            if not context:
                return {"refusal": self._last_error or "the engine cannot create this context"}
            try:
                return {"n_ctx": self._lib.llama_n_ctx(context), "buffers": self._rows(context)}
            finally:
                self._lib.llama_free(context)
        finally:
            self._lib.llama_model_free(model)

    def _model_params(self, request: dict[str, Any], keep: list[object]) -> Any:  # noqa: ANN401 - ctypes
        params = self._lib.llama_model_default_params()
        params.no_alloc, params.load_mode = True, _LOAD_MODE_NONE
        n_gpu_layers = request["n_gpu_layers"]
        params.n_gpu_layers = n_gpu_layers if n_gpu_layers >= 0 else 0x7FFFFFFF
        params.use_extra_bufts, params.load_mtp = request["use_extra_bufts"], request["load_mtp"]
        if request["tensor_split"]:
            # llama.cpp reads llama_max_devices() values.
            shares = (c.c_float * self._lib.llama_max_devices())(*request["tensor_split"])
            keep.append(shares)
            params.tensor_split = c.cast(shares, c.POINTER(c.c_float))
        if request["overrides"]:
            table = (_Override * (len(request["overrides"]) + 1))()
            for row, (pattern, buffer) in zip(table, request["overrides"], strict=False):
                row.pattern, row.buffer_type = pattern.encode(), self._ggml.buffer_type(buffer)
            keep.append(table)
            params.tensor_buft_overrides = c.cast(table, c.c_void_p)
        return params

    def _context_params(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - ctypes
        params = self._lib.llama_context_default_params()
        for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_outputs_max", "type_k", "type_v",
                     "kv_unified", "offload_kqv", "op_offload"):  # fmt: skip
            setattr(params, name, request[name])
        params.flash_attn_type = request["flash_attn"]
        params.ctx_type = _DRAFTING if request["drafts"] else _USUAL
        return params

    def _rows(self, context: object) -> list[dict[str, Any]]:
        tree, gpus = self._breakdown(context), self._ggml.gpus()
        rows: list[dict[str, Any]] = []
        for node in _walk(tree.root):
            name = self._ggml.buffer_type_name(node.key).decode()
            host = self._ggml.buffer_type_is_host(node.key)
            device = None if host else gpus.get(self._ggml.buffer_type_device(node.key))
            rows.append({"name": name, "device": device, "model_bytes": node.model,
                         "context_bytes": node.context, "compute_bytes": node.compute})  # fmt: skip
        if len(rows) != tree.count:
            message = f"the memory map has {tree.count} entries, {len(rows)} were read: unknown library layout"
            raise RuntimeError(message)
        return rows


def _require_tested_version() -> None:
    found = version("llama_cpp_python")
    if found not in TESTED_VERSIONS:
        message = f"llama-cpp-python {found} is not among the versions whose memory map is known: {TESTED_VERSIONS}"
        raise RuntimeError(message)


def _bindings() -> ModuleType:
    """`llama_cpp.llama_cpp` without its package's `__init__`, which loads numpy and half a second of other things."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.submodule_search_locations is None:
        message = "llama-cpp-python is not installed here"
        raise RuntimeError(message)
    package = ModuleType("llama_cpp")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["llama_cpp"] = package
    return import_module("llama_cpp.llama_cpp")


def main() -> None:
    """Serve requests until stdin ends."""
    # llama.cpp and ggml print to stdout here and there: keep it for the answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _require_tested_version()
        runner = DryRunner()
    except (ImportError, OSError, RuntimeError) as error:
        answers.write(json.dumps({"refusal": f"no dry run: {error}"}) + "\n")
        return
    for line in sys.stdin:
        answers.write(json.dumps(runner.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
