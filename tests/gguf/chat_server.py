"""A real HTTP server that plays chat completions recorded from llama-server (chat_answers.json says from which)."""

import contextlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

from loopback import listening

_RECORDED: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "chat_answers.json").read_text("utf-8"))
# Hangs up in the middle of an answer, as an engine does that dies.
HANG_UP: Final = "hang up"


@dataclass
class ChatServer:
    """Plays `answers` in order; `asked` are the bodies of the requests."""

    answers: list[str]
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


def recorded(name: str) -> tuple[int, dict[str, Any]]:
    """Status and body of one recorded answer."""
    answer = _RECORDED["answers"][name]
    return answer["status"], answer["body"]


@contextlib.contextmanager
def playing(answers: Sequence[str]) -> Generator[ChatServer, None, None]:
    """A running server, stopped at the end."""
    state = ChatServer(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.asked.append({"path": self.path, **json.loads(body)})
            name = state.answers.pop(0)
            if name == HANG_UP:
                self.close_connection = True
                return
            status, document = recorded(name)
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class names it
            """Quiet."""

    with listening(Handler) as state.port:
        yield state
