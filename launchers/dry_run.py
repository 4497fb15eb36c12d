"""Ask an engine what it would allocate: a child process loads a header-true file with `no_alloc`.

The child is llama-cpp-python's library through ctypes (`dry_run_child`). It may abort: that is an answer too.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from glmplan.breakdown import SIZED_UNPACKED, Breakdown, BufferType, DryRunRequest
from glmplan.errors import EngineNotFound
from glmplan.ggml_types import cache_type
from glmplan.jsonio import to_jsonable
from glmplan.placement import FlashAttention, Placement

_ANSWER_TIMEOUT_S: Final = 60.0
_ENDED: Final = "the engine's process ended with"
# What --n-cpu-moe expands to (common/common.h:1198-1222).
EXPERT_PATTERN: Final = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"


class DryRun:
    """A child that answers `DryRunRequest`s; use it as a context manager.

    Args:
        python: interpreter that has llama-cpp-python; this one by default.
        environment: variables to add, for example `GLMPLAN_GGML_BACKEND`.
    """

    def __init__(self, python: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._python = python or sys.executable
        # Without the variable ggml attaches a debugger to a process that aborts.
        self._environment = {**os.environ, "GGML_NO_BACKTRACE": "1", **(environment or {})}
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ask(self, request: DryRunRequest, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> Breakdown:
        """The engine's buffers for `request`, or why it refuses; never raises for what the engine does.

        An engine that aborts over rearranged weights is asked once more without them, and the answer says so.

        Raises:
            EngineNotFound: the child cannot even start.
        """
        answer = self._ask(request, timeout_s)
        if request.use_extra_bufts and (answer.refusal or "").startswith(_ENDED):
            again = self._ask(replace(request, use_extra_bufts=False), timeout_s)
            return replace(again, note=SIZED_UNPACKED) if again.refusal is None else answer
        return answer

    def _ask(self, request: DryRunRequest, timeout_s: float) -> Breakdown:
        child = self._running()
        assert child.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            child.stdin.write(json.dumps(to_jsonable(request)) + "\n")
            child.stdin.flush()
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self._stop()
            return Breakdown(refusal=f"no answer within {timeout_s:g} s")
        except OSError:
            line = None
        if line is None:
            code = child.wait(timeout=5)
            self._stop()
            return Breakdown(refusal=f"{_ENDED} {code} while sizing this configuration")
        return _decoded(line)

    def _running(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._stop()
        try:
            child = subprocess.Popen(
                [self._python, "-m", "glmplan.launchers.dry_run_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            message = f"cannot start {self._python}: {error.strerror or error}"
            raise EngineNotFound(message, hint="pip install 'glmplan[engine]'") from error
        self._child, self._lines = child, queue.Queue()
        threading.Thread(target=_pump, args=(child, self._lines), daemon=True).start()
        return child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None and not child.stdin.closed:
            try:
                child.stdin.close()
            except OSError:
                child.kill()
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _pump(child: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
    """Hand the child's lines to whoever waits, then None."""
    if child.stdout is not None:
        try:
            for line in child.stdout:
                lines.put(line)
        except ValueError:  # closed while stopping
            pass
    lines.put(None)


def _decoded(line: str) -> Breakdown:
    answer = json.loads(line)
    if "refusal" in answer:
        return Breakdown(refusal=answer["refusal"])
    return Breakdown(buffers=tuple(BufferType(**row) for row in answer["buffers"]), n_ctx=answer["n_ctx"])


def request_of(placement: Placement, model: str) -> DryRunRequest:
    """`placement` in the engine's words; expert offload becomes the patterns that llama-server itself makes of it."""
    experts = tuple((EXPERT_PATTERN.format(layer=layer), "CPU") for layer in range(placement.n_cpu_moe))
    return DryRunRequest(
        model=model,
        n_ctx=placement.n_ctx,
        n_batch=placement.n_batch,
        n_ubatch=placement.n_ubatch,
        n_seq_max=placement.n_parallel,
        n_outputs_max=placement.n_outputs,
        type_k=int(cache_type(placement.cache_type_k)),
        type_v=int(cache_type(placement.cache_type_v)),
        flash_attn={FlashAttention.ON: 1, FlashAttention.OFF: 0, FlashAttention.AUTO: -1}[placement.flash_attn],
        kv_unified=placement.kv_unified,
        n_gpu_layers=placement.n_gpu_layers,
        tensor_split=placement.tensor_split,
        overrides=(*((o.pattern, o.buffer) for o in placement.override_tensor), *experts),
        op_offload=placement.op_offload,
        use_extra_bufts=placement.repack,
        load_mtp=placement.load_mtp,
    )


def has_dry_run() -> bool:
    """Whether this interpreter has a llama-cpp-python that can be asked."""
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None
