"""The door to Ray: loaded when it is asked for, and what to do when it is not installed or no cluster runs.

Ray has no types of its own that a checker without it could use, so its objects are `Any` here.
"""

import contextlib
import importlib
import logging
import os
import socket
import sys
from collections.abc import Generator
from typing import Any, Final

from glmplan.errors import ClusterError

START_HINT: Final = "start one: ray start --head --port=6379 (docs/cluster.md)"
_CONNECT_S: Final = 3.0


def ray() -> Any:  # noqa: ANN401 - the library has no types here
    """The library.

    Raises:
        ClusterError: it is not installed.
    """
    os.environ.setdefault("RAY_DISABLE_USAGE_STATS", "1")  # read when Ray is imported
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        message = f"Ray is not installed: {error}"
        raise ClusterError(message, hint="pip install 'glmplan[cluster]'") from error


def serve() -> Any:  # noqa: ANN401 - the library has no types here
    """Ray Serve.

    Raises:
        ClusterError: it is not installed.
    """
    ray()
    try:
        library = importlib.import_module("ray.serve")
    except ImportError as error:
        message = f"Ray Serve is not installed: {error}"
        raise ClusterError(message, hint="pip install 'glmplan[cluster]'") from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every step on standard error
    return library


def strategies() -> Any:  # noqa: ANN401 - the library has no types here
    """Ray's ways to say on which node something runs."""
    return importlib.import_module("ray.util.scheduling_strategies")


@contextlib.contextmanager
def connected(address: str | None) -> Generator[str, None, None]:
    """A connection to the cluster at `address` (None: RAY_ADDRESS, or the one of this machine); yields its address.

    While it lasts standard output is standard error: Ray prints what happens to nodes, and answers are ours to print.

    Raises:
        ClusterError: Ray is not installed, or no cluster answers.
    """
    library = ray()
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    _require_answer(wanted)
    try:
        context = library.init(
            address=wanted, log_to_driver=False, logging_level="ERROR", configure_logging=True, namespace="glmplan"
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise _no_cluster(wanted, str(error).partition("\n")[0]) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield str(context.address_info["gcs_address"])
    finally:
        library.shutdown()


def _require_answer(address: str) -> None:
    """Knock first: Ray itself tries for a minute."""
    host, mark, port = address.rpartition(":")
    if "://" in address or not mark or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, why: str) -> ClusterError:
    where = "on this machine" if address == "auto" else f"at {address}"
    message = f"no Ray cluster runs {where}: {why}"
    return ClusterError(message, hint=START_HINT, facts={"address": address})
