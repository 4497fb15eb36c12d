"""`detect --record`: a scrubbed tape with the machine it must give."""

import getpass
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path

from glmplan import __version__
from glmplan.errors import InputError
from glmplan.full_disk import not_written
from glmplan.jsonio import dumps
from glmplan.profiles.detect import detect
from glmplan.profiles.probes.configuration import read_configuration
from glmplan.profiles.scrub import Scrubber, group_names, kept_environment, scrub
from glmplan.profiles.tape import Recorder, TapeHost, save


def record_to(recorder: Recorder, folder: Path) -> None:
    """Scrub what `recorder` remembers and write it to `folder`, with the machine that replaying it gives.

    Raises:
        InputError: `folder` exists and is not empty, or cannot be written; nothing is left in it then.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            message = f"{folder} is not empty"
            raise InputError(message, hint="record to a new folder")
    except OSError as error:
        raise _unwritten(folder, error) from error
    read_configuration(recorder)  # what `glmplan doctor` asks
    try:
        scrubber = Scrubber(_names(), group_names(recorder.reads.get("/proc/self/cgroup")), home=str(Path.home()))
        environment = kept_environment(recorder.env, scrubber)
        scrub(recorder, scrubber)
        meta = {"command": "glmplan detect --record DIR", "glmplan_version": __version__,
                "date": time.strftime("%Y-%m-%d"), "system": platform.system()}  # fmt: skip
        save(recorder, folder, meta=meta, env=environment)
        (folder / "expected.json").write_text(dumps(detect(TapeHost(folder))) + "\n", encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)  # half a tape replays as another machine
        raise _unwritten(folder, error) from error


def _unwritten(folder: Path, error: OSError) -> InputError:
    error.filename = str(folder)
    why = not_written(error)
    return InputError(f"no tape: {why.message}", hint="choose another folder", facts=why.facts)


def _names() -> list[str]:
    """Names of this machine and this user."""
    names = [platform.node(), platform.node().partition(".")[0]]
    with suppress(OSError, KeyError, ImportError):
        names.append(getpass.getuser())
    return names
