"""The one place where errors become messages and exit codes."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from glmplan.errors import GlmplanError, InputError

EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def guard(run: Callable[[], int | None], argv: Sequence[str]) -> int:
    """Call `run`; what it raises becomes text on stderr (with --json also a document on stdout) and a code."""
    _open_missing_streams()
    as_json = "--json" in argv
    try:
        code = run() or 0
        sys.stdout.flush()  # a reader that went away or a full disk shows here, not while the interpreter ends
    except GlmplanError as error:
        _say(error, type(error).__name__, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit) as end:
        # The reader went away (`| head`): nothing is wrong. Typer turns that into exit status 1.
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise
        _drop_stdout()
        return 0
    except Exception as error:
        known = _usage_error(error) or _no_room(error)
        if known is None:
            _say(_bug(error), "Bug", as_json=as_json)
            return EXIT_BUG
        _say(known, type(known).__name__, as_json=as_json)
        return known.exit_code
    return code


def _open_missing_streams() -> None:
    """Stand-ins for streams closed by the caller (`>&-`), where Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end


def end_answer() -> None:
    """The one document of --json is out: nothing that happens later adds to standard output, and its reader may go."""
    sys.stdout.flush()
    _drop_stdout()


def _drop_stdout() -> None:
    """Keep the interpreter from flushing what is left into a stream that does not take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_error(error: Exception) -> GlmplanError | None:
    """A mistake on the command line; None for any other exception."""
    formatted = getattr(error, "format_message", None)
    if not callable(formatted):
        return None
    command: str = getattr(getattr(error, "ctx", None), "command_path", "glmplan")
    return InputError(str(formatted()), hint=f"{command} --help")


def _no_room(error: Exception) -> GlmplanError | None:
    """A full disk, whoever was writing; None for any other exception."""
    from glmplan.full_disk import no_room

    return no_room(error) if isinstance(error, OSError) else None


def _say(error: GlmplanError, kind: str, *, as_json: bool) -> None:
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  try: {error.hint}\n")
    document = {"type": kind, "message": error.message, "hint": error.hint, "facts": error.facts}
    try:
        if as_json:
            sys.stdout.write(json.dumps({"error": document}, indent=2) + "\n")
        sys.stdout.flush()
    except OSError:
        _drop_stdout()  # the message is on stderr, the code says the rest


def _bug(error: Exception) -> GlmplanError:
    """Save the traceback under the state folder and say where."""
    from glmplan.paths import state_folder, write_atomic

    text = "".join(traceback.format_exception(error))
    path = state_folder() / "crashes" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    try:
        write_atomic(path, text, mode=0o600)
        where = f"the traceback is in {path}"
    except OSError:
        sys.stderr.write(text)
        where = "the traceback is above"
    message = f"this is a bug in glmplan: {type(error).__name__}: {error}"
    return GlmplanError(message, hint=f"{where}; please report it with the output of `glmplan detect --json`")
