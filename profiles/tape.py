"""Record what a machine answers, and replay it anywhere.

A tape is a folder: `read/` (files under their real paths), `absent.txt` (questions that had no answer, one per
line, `*` allowed), `folders.json`, `run.json`, `call/NAME.json`, `env.json` and `meta.yaml`.
"""

import fnmatch
import json
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glmplan.errors import InputError, JsonValue
from glmplan.profiles.host import Completed, Host, spoken
from glmplan.profiles.probes.json_fields import Fields, fields, integer, items, sequence

ABSENT = Completed(returncode=None, why="not found")


def is_tape(path: Path) -> bool:
    """True when `path` is a folder that `detect --record` wrote (or one typed in its shape)."""
    return path.is_dir() and (path / "meta.yaml").is_file()


class Recorder:
    """Answers as the wrapped host does, and remembers every answer."""

    def __init__(self, host: Host) -> None:
        """Record what `host` answers."""
        self._host = host
        self._lock = threading.Lock()
        self.reads: dict[str, str] = {}
        self.folders: dict[str, tuple[str, ...]] = {}
        self.runs: dict[tuple[str, ...], Completed] = {}
        self.calls: dict[str, JsonValue] = {}
        self.absent: set[str] = set()

    @property
    def env(self) -> Mapping[str, str]:
        """Environment variables of the wrapped host."""
        return self._host.env

    def read(self, path: str) -> str | None:
        """Read and remember."""
        text = self._host.read(path)
        with self._lock:
            if text is None:
                self.absent.add(f"read {path}")
            else:
                self.reads[path] = text
        return text

    def folder(self, path: str) -> tuple[str, ...]:
        """List and remember."""
        names = self._host.folder(path)
        with self._lock:
            if names:
                self.folders[path] = names
            else:
                self.absent.add(f"folder {path}")
        return names

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 2.0, remember_for: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        """Run and remember."""
        completed = self._host.run(argv, timeout_s=timeout_s, remember_for=remember_for, env=env)
        line = spoken(argv, env)
        with self._lock:
            if completed.returncode is None and completed.why == ABSENT.why:
                self.absent.add(f"run {shlex.join(line)}")
            else:
                self.runs[line] = completed
        return completed

    def call(self, name: str, collect: Callable[[], JsonValue]) -> JsonValue:
        """Call and remember."""
        answer = self._host.call(name, collect)
        with self._lock:
            self.calls[name] = answer
        return answer


class TapeHost:
    """A recorded machine; a question the tape has no answer for is kept in `missed`, never silently absent."""

    def __init__(self, folder: Path) -> None:
        """Open a tape.

        Raises:
            InputError: `folder` is not a tape.
        """
        if not is_tape(folder):
            message = f"{folder} is not a tape: it holds no meta.yaml"
            raise InputError(message, hint="record one with `glmplan detect --record DIR`")
        self._folder = folder
        self.name = folder.resolve().name
        self.damaged: list[str] = []
        self.missed: list[str] = []
        self._env = {str(name): str(value) for name, value in self._object("env.json").items()}
        self._folders = self._object("folders.json")
        self._runs = _runs_from(self._document("run.json", []))
        self._absent = _lines(folder / "absent.txt")

    @property
    def env(self) -> Mapping[str, str]:
        """The recorded environment variables."""
        return self._env

    def read(self, path: str) -> str | None:
        """The recorded text of a file."""
        try:
            return (self._folder / "read" / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):  # ValueError: a NUL byte in the path
            self._miss(f"read {path}")
            return None

    def folder(self, path: str) -> tuple[str, ...]:
        """The recorded names in a folder."""
        names = sequence(self._folders.get(path))
        if names:
            return tuple(str(name) for name in names)
        self._miss(f"folder {path}")
        return ()

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 2.0, remember_for: str | None = None,  # noqa: ARG002 - nothing runs
        env: Mapping[str, str] | None = None,
    ) -> Completed:  # fmt: skip
        """The recorded answer of a command."""
        line = spoken(argv, env)
        if completed := self._runs.get(line):
            return completed
        self._miss(f"run {shlex.join(line)}")
        return ABSENT

    def call(self, name: str, collect: Callable[[], JsonValue]) -> JsonValue:  # noqa: ARG002 - nothing is called
        """The recorded answer of a native call."""
        if not (self._folder / "call" / f"{name}.json").is_file():
            self._miss(f"call {name}")
            return None
        answer: JsonValue = self._document(f"call/{name}.json", None)
        return answer

    def _miss(self, question: str) -> None:
        if not any(fnmatch.fnmatchcase(question, pattern) for pattern in self._absent):
            self.missed.append(question)

    def _object(self, name: str) -> Fields:
        return fields(self._document(name, {}))

    def _document(self, name: str, default: Any) -> Any:  # noqa: ANN401 - JSON is what it is
        try:
            return json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            self.damaged.append(name)
            return default


def save(recorder: Recorder, folder: Path, *, meta: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Write what `recorder` remembers to `folder`, as it is: scrub it first (`glmplan.profiles.scrub`)."""
    for path, text in recorder.reads.items():
        _write(folder / "read" / path.lstrip("/"), text)
    for name, answer in recorder.calls.items():
        _write(folder / "call" / f"{name}.json", _json(answer))
    _write(folder / "env.json", _json(dict(env)))
    _write(folder / "folders.json", _json({path: list(names) for path, names in sorted(recorder.folders.items())}))
    _write(folder / "run.json", _json([_run_to(argv, done) for argv, done in sorted(recorder.runs.items())]))
    _write(folder / "absent.txt", "".join(f"{question}\n" for question in sorted(recorder.absent)))
    _write(folder / "meta.yaml", "".join(f"{key}: {json.dumps(value)}\n" for key, value in meta.items()))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _run_to(argv: Sequence[str], done: Completed) -> dict[str, object]:
    """One command as JSON; output as lines, so that a difference can be read."""
    return {"argv": list(argv), "returncode": done.returncode, "why": done.why,
            "stdout": done.stdout.split("\n"), "stderr": done.stderr.split("\n")}  # fmt: skip


def _runs_from(document: object) -> dict[tuple[str, ...], Completed]:
    """Commands by their argument list; an entry of another shape is left out."""
    runs: dict[tuple[str, ...], Completed] = {}
    for entry in items(document):
        if argv := tuple(str(word) for word in sequence(entry.get("argv"))):
            runs[argv] = Completed(
                returncode=integer(entry.get("returncode")),
                stdout=_text(entry.get("stdout")), stderr=_text(entry.get("stderr")), why=str(entry.get("why") or ""),
            )  # fmt: skip
    return runs


def _text(value: object) -> str:
    return value if isinstance(value, str) else "\n".join(str(line) for line in sequence(value))


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip())
    except OSError:
        return ()
