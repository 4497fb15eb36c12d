"""The ways from the front to the groups of replicas: which has room, and what a replica has begun to answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from glmplan.launchers.cluster import ray_library
from glmplan.launchers.cluster.application import REPLICA_METHOD
from glmplan.launchers.cluster.messages import Head, Request

_TRIES: Final = 6
_BACKOFF_S: Final = 0.2
_LOOK_S: Final = 1.0
_RETRIED_STATUS: Final = frozenset({502, 503, 504})
_EVENTS: Final = "text/event-stream"
_SHOWN_CHARACTERS: Final = 200


class NothingSent(Exception):
    """No replica has begun an answer, after all tries."""


class _Failed(Exception):
    """One replica has not begun an answer."""


class Answer:
    """What a replica answers: the head, the first bytes (everything, unless it is a stream), and the rest."""

    def __init__(self, group: str, pieces: Any) -> None:  # noqa: ANN401 - Ray's own type
        """Nothing has been read yet of `pieces`, what Ray Serve's handle gave."""
        self.group = group
        self.head = Head(status=0, headers=())
        self.first = b""
        self._pieces = pieces

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return any(name.lower() == "content-type" and _EVENTS in value for name, value in self.head.headers)

    async def begin(self) -> None:
        """Read the head and the first bytes."""
        self.head = await anext(self._pieces)
        if self.is_stream:
            self.first = await anext(self._pieces, b"")
        else:
            self.first = b"".join([piece async for piece in self._pieces])

    def rest(self) -> AsyncIterator[bytes]:
        """What comes after `first`."""
        pieces: AsyncIterator[bytes] = self._pieces
        return pieces

    def cancel(self) -> None:
        """The client has gone, or another replica is asked: this one need not go on."""
        self._pieces.cancel()


class Routes:
    """Every group's handle, slots, running replicas and requests under way."""

    def __init__(self, application: str, users: Mapping[str, int], handles: Mapping[str, Any]) -> None:
        """`users` are slots of one replica, `handles` Ray Serve's, both by group."""
        self._application = application
        self._users = dict(users)
        self._handles = {
            name: handle.options(stream=True, method_name=REPLICA_METHOD) for name, handle in handles.items()
        }
        self._looked_at = 0.0
        self.running = dict.fromkeys(handles, 1)
        self.under_way = dict.fromkeys(handles, 0)
        self.retried = 0

    async def answer(self, request: Request) -> Answer:
        """The answer of the first replica that begins one; `done` must be called with it.

        Raises:
            NothingSent: none did.
        """
        said = ""
        for attempt in range(_TRIES):
            if attempt:
                self.retried += 1
                await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
            group = await self._choose()
            self.under_way[group] += 1
            answer = Answer(group, self._handles[group].remote(request))
            try:
                await self._begun(answer)
            except _Failed as error:
                said = str(error)
            except BaseException:
                self.done(answer)
                raise
            else:
                if answer.head.status not in _RETRIED_STATUS:
                    return answer
                said = f"HTTP {answer.head.status} {answer.first.decode(errors='replace')[:_SHOWN_CHARACTERS]}"
            self.done(answer)
        message = f"no replica answered in {_TRIES} tries; the last said: {said}"
        raise NothingSent(message)

    def done(self, answer: Answer) -> None:
        """The answer is over, in whatever way."""
        self.under_way[answer.group] -= 1
        answer.cancel()

    async def look(self) -> None:
        """Learn how many replicas of each group run; at most once a second."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        status = await asyncio.to_thread(ray_library.serve().status)
        for name, deployment in status.applications[self._application].deployments.items():
            if name in self.running:
                self.running[name] = int(deployment.replica_states.get("RUNNING", 0))

    async def _choose(self) -> str:
        """The group with the least of its slots taken, of those that have a replica that runs."""
        if len(self._handles) == 1:
            return next(iter(self._handles))
        await self.look()
        able = [name for name, count in self.running.items() if count] or list(self._handles)
        return min(able, key=lambda name: self.under_way[name] / (max(1, self.running[name]) * self._users[name]))

    async def _begun(self, answer: Answer) -> None:
        """Wait until the answer has begun, as long as its group has a replica or no other has.

        Raises:
            _Failed: it will not.
        """
        beginning = asyncio.ensure_future(answer.begin())
        try:
            while not (await asyncio.wait({beginning}, timeout=_LOOK_S))[0]:
                await self.look()
                if not self.running[answer.group] and any(self.running.values()):
                    message = "its group has no replica that runs"
                    break
            else:
                beginning.result()
                return
        except Exception as error:
            # Whatever it was, of Ray or of the engine: nothing has been sent, so that another may be asked.
            message = str(error).strip().rpartition("\n")[2][:_SHOWN_CHARACTERS] or type(error).__name__
            raise _Failed(message) from error
        finally:
            beginning.cancel()
        raise _Failed(message)
