"""Ollama's program and daemon, played: `python ollama_daemon.py serve | --version`; nothing is computed.

Stateful as the real one is (blobs, models, what is loaded and until when). Shapes and words from ollama docs/api.md and
docs/openapi.yaml (v0.33.0-rc2), api/types.go, llm/status.go, and openai/openai.go for /v1/completions. The file
`played.json` in OLLAMA_MODELS says what it is to do wrong, and may change while it runs:

- `version`: what it says it is;
- `gpu_bytes`, `total_bytes`, `context`: what /api/ps tells of a loaded model instead of what was asked for;
- `load`: `out-of-memory`, `dies`;
- `room`: bytes left in its store.
"""

import datetime
import hashlib
import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

VERSION = "0.33.0"
_PARAMETERS = {
    "num_ctx", "num_batch", "num_gpu", "num_thread", "use_mmap", "temperature", "top_p", "min_p", "repeat_penalty",
    "num_predict", "draft_num_predict",
}  # fmt: skip
_OUT_OF_MEMORY = "llama-server process has terminated: ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory"  # noqa: E501
_TEMPLATE_TOKENS = 6


def store() -> Path:
    """Where it keeps blobs and models."""
    folder = Path(os.environ["OLLAMA_MODELS"])
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    return folder


def script() -> dict[str, Any]:
    """What it is to do wrong."""
    file = Path(os.environ["OLLAMA_MODELS"]) / "played.json"
    played: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return played


class Daemon:
    """What is loaded, by model: until when."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until: dict[str, float] = {}

    def models(self) -> dict[str, Any]:
        file = store() / "models.json"
        known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return known

    def create(self, body: dict[str, Any]) -> str | None:
        """Why a model is refused; None when it was created."""
        unknown = set(body.get("parameters", {})) - _PARAMETERS
        if unknown:
            return f"unknown parameter '{min(unknown)}'"
        for digest in body.get("files", {}).values():
            if not (store() / "blobs" / digest.replace(":", "-")).is_file():
                return f"blob {digest} not found"
        models = self.models() | {body["model"]: body}
        (store() / "models.json").write_text(json.dumps(models))
        return None

    def loaded(self) -> list[str]:
        with self.lock:
            now = time.time()
            self.until = {name: until for name, until in self.until.items() if until > now}
            return sorted(self.until)

    def keep(self, name: str, keep_alive: str | int | None) -> None:
        given = re.fullmatch(r"(\d+)([smh]?)", str("5m" if keep_alive is None else keep_alive))
        assert given is not None
        seconds = int(given[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[given[2]]
        with self.lock:
            self.until[name] = time.time() + seconds

    def row(self, name: str) -> dict[str, Any]:
        """One model of GET /api/ps."""
        played, model = script(), self.models()[name]
        until = datetime.datetime.fromtimestamp(self.until[name], datetime.UTC)
        return {
            "name": f"{name}:latest", "model": f"{name}:latest", "size": played.get("total_bytes", 2_600_000),
            "digest": "0" * 64, "expires_at": until.isoformat(), "size_vram": played.get("gpu_bytes", 0),
            "context_length": played.get("context", model["parameters"]["num_ctx"]),
            "details": {"parent_model": "", "format": "gguf", "family": "deepseek2", "families": ["deepseek2"],
                        "parameter_size": "1.0M", "quantization_level": "F32"},
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """The API."""

    daemon: Daemon
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/":
            self._text("Ollama is running")
        elif self.path == "/api/version":
            self._answer({"version": script().get("version", VERSION)})
        elif self.path == "/api/ps":
            self._answer({"models": [self.daemon.row(name) for name in self.daemon.loaded()]})
        else:
            self._answer({"error": "404 page not found"}, 404)

    def do_HEAD(self) -> None:
        found = (store() / "blobs" / self.path.rpartition("/")[2].replace(":", "-")).is_file()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/api/blobs/"):
            self._blob(self.path.rpartition("/")[2], content)
            return
        body = json.loads(content)
        if self.path == "/api/create":
            refusal = self.daemon.create(body)
            self._answer(
                {"status": "success"} if refusal is None else {"error": refusal}, 200 if refusal is None else 400
            )
        elif body.get("model") not in self.daemon.models():
            self._answer({"error": f"model '{body.get('model')}' not found"}, 404)
        elif self.path == "/api/generate":
            self._generate(body)
        else:
            self._complete(body)

    def _blob(self, digest: str, content: bytes) -> None:
        if digest != f"sha256:{hashlib.sha256(content).hexdigest()}":
            self._answer({"error": f"digest mismatch, expected {digest!r}"}, 400)
            return
        if len(content) > script().get("room", len(content)):
            self._answer({"error": f"write {store()}/blobs/{digest}-partial: no space left on device"}, 500)
            return
        (store() / "blobs" / digest.replace(":", "-")).write_bytes(content)
        with (store() / "pushed").open("a") as pushed:
            pushed.write(digest + "\n")
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _generate(self, body: dict[str, Any]) -> None:
        name, fault = body["model"], script().get("load")
        if fault == "out-of-memory":
            self._answer({"error": _OUT_OF_MEMORY}, 500)
            return
        if fault == "dies" and body.get("keep_alive") != 0:
            os._exit(1)
        reason = "load"
        self.daemon.keep(name, body.get("keep_alive"))
        if body.get("keep_alive") == 0:
            reason = "unload"
        created = "2026-09-12T03:54:03.516566Z"
        self._answer({"model": name, "created_at": created, "response": "", "done": True, "done_reason": reason})

    def _complete(self, body: dict[str, Any]) -> None:
        """POST /v1/completions as a stream."""
        self.daemon.keep(body["model"], None)
        asked, wanted = len(str(body["prompt"]).split()) + _TEMPLATE_TOKENS, int(body["max_tokens"])
        base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "system_fingerprint": "fp_ollama",
                "model": body["model"]}  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(wanted):
            last = "length" if number == wanted - 1 else None
            self._event({**base, "choices": [{"text": f" word{number}", "index": 0, "finish_reason": last}]})
            time.sleep(0.002)
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": asked, "completion_tokens": wanted, "total_tokens": asked + wanted}
            self._event({**base, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, document: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())
        self.wfile.flush()

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        self._text(json.dumps(document), status)

    def _text(self, text: str, status: int = 200) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the class above
        sys.stderr.write(f"[GIN] {format % args}\n")


def main(argv: list[str]) -> int:
    """The two commands that are asked for."""
    if argv == ["--version"]:
        print(f"ollama version is {script().get('version', VERSION)}")
        return 0
    assert argv == ["serve"], argv
    address = urlsplit(f"http://{os.environ['OLLAMA_HOST']}")
    Handler.daemon = Daemon()
    ThreadingHTTPServer((address.hostname or "", address.port or 0), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
