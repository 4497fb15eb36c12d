"""One engine inside a replica's process: started and watched by a thread of its own, to which its life is tied.

On Linux the kernel kills an engine when the thread that started it ends (`glmplan.launchers.keeper`); threads of Ray's
pools come and go, this one stays until the engine has ended.
"""

import queue
import threading
from collections.abc import Callable
from typing import Final

from glmplan.engine import Engine
from glmplan.errors import EngineError, PortTaken
from glmplan.launchers import model_file, process, records
from glmplan.launchers import port as ports
from glmplan.launchers.assemble import assemble
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.process import WHILE_SERVING, EngineProcess, LoadProgress
from glmplan.plan import Plan

_HOST: Final = "127.0.0.1"
# Two replicas on one machine may be given the same free port at the same moment.
_TRIES: Final = 5


class KeptEngine:
    """A running engine that answers; `on_end` is called, with the reason, when it ends without being asked to."""

    def __init__(self, launch: Launch, on_end: Callable[[EngineError], None]) -> None:
        """Start `launch` and wait until it answers.

        Raises:
            EngineError: it cannot be started, died, or did not answer in time.
        """
        self._on_end = on_end
        self._is_serving = threading.Event()
        answer: queue.Queue[EngineProcess | Exception] = queue.Queue()
        threading.Thread(target=self._stay, args=(launch, answer), name="engine", daemon=True).start()
        started = answer.get()
        if isinstance(started, Exception):
            raise started
        self.running = started
        try:
            process.wait_until_healthy(started, on_progress=_nothing)
        except BaseException:
            started.stop()
            raise
        self._is_serving.set()

    def _stay(self, launch: Launch, answer: "queue.Queue[EngineProcess | Exception]") -> None:
        """Start the engine and stay as long as it lives."""
        try:
            running = process.start(launch)
        except Exception as error:
            answer.put(error)
            return
        answer.put(running)
        running.wait()
        if self._is_serving.is_set():
            self._on_end(running.failed(WHILE_SERVING))

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self.running.poll() is not None

    def stop(self) -> None:
        """End the engine; nothing happens when it has ended."""
        self._is_serving.clear()
        self.running.stop()


def kept_engine(plan: Plan, engine: Engine, alias: str, on_end: Callable[[EngineError], None]) -> KeptEngine:
    """An engine that serves `plan` on a free port of this machine alone.

    Raises:
        EngineError: it cannot be started, died, or did not answer in time.
        InputError: the model file is not on this machine or not whole.
    """
    model_file.require_model(plan.model, how_to_get="put it there on every node, at the same path")
    for attempt in range(_TRIES):
        endpoint = Endpoint(host=_HOST, port=ports.free_port(_HOST), alias=alias)
        try:
            with records.hold_port(endpoint.host, endpoint.port):
                return KeptEngine(assemble(plan, engine, endpoint, folder=records.folder()), on_end)
        except PortTaken:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError


def _nothing(_: LoadProgress) -> None:
    """Nobody watches a replica load; Ray Serve shows that it is starting."""
