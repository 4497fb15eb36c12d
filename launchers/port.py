"""Whether an address can be listened on, and who holds it when it cannot."""

import errno
import os
import socket
from contextlib import suppress
from typing import Final

from glmplan.errors import InputError, JsonValue, PortTaken
from glmplan.noun import noun

_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound

_NEAR_PORTS: Final = 20


@noun
class Listener:
    """A process that listens on a port."""

    pid: int
    name: str


def require_free(host: str, port: int) -> None:
    """Prove by binding that `host:port` is free.

    Raises:
        PortTaken: somebody listens there; says who when the system tells.
        InputError: the address is not one of this machine's, or the port is a privileged one.
    """
    try:
        _bind(host, port)
    except socket.gaierror as error:
        message = f"cannot listen on {host!r}: {error.strerror}"
        raise InputError(message, hint="--host 127.0.0.1, or an address of this machine") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise taken(host, port) from error
        message = f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
        raise InputError(message, hint="choose an address of this machine and a port from 1024 to 65535") from error


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the engines do: ignore TIME_WAIT
        probe.bind(address)
        probe.listen(1)


def taken(host: str, port: int, *, who: str | None = None) -> PortTaken:
    """The error that names whoever listens on `host:port`, as far as the system tells, and a free port."""
    holder = listener(port)
    name = who or (f"{holder.name} (process {holder.pid})" if holder else "another process")
    free = _next_free(host, port)
    facts: dict[str, JsonValue] = {"host": host, "port": port, "free_port": free}
    if holder:
        facts |= {"pid": holder.pid, "process": holder.name}
    return PortTaken(f"port {port} on {host} is in use by {name}", hint=f"--port {free}, or stop it first", facts=facts)


def _next_free(host: str, port: int) -> int:
    """The nearest free port above, or any."""
    for candidate in range(port + 1, min(port + 1 + _NEAR_PORTS, 65536)):
        with suppress(OSError):
            _bind(host, candidate)
            return candidate
    return free_port(host)


def listener(port: int) -> Listener | None:
    """Who listens on `port`; None when nobody does or the system keeps it from us."""
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            local = connection.laddr
            if local and connection.status == psutil.CONN_LISTEN and local.port == port and connection.pid:
                return Listener(pid=connection.pid, name=psutil.Process(connection.pid).name())
    return None


def free_port(host: str) -> int:
    """A port nobody listens on right now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = host if host not in _ALL_ADDRESSES else ("::1" if ":" in host else "127.0.0.1")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
