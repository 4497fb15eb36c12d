"""Engines that take a plan in their own words: what the installed one is, asked when it is to be launched."""

import http.client
import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from glmplan.engine import Engine, EngineKind
from glmplan.errors import InputError
from glmplan.profiles.host import Host
from glmplan.profiles.probes.engine_places import read_places
from glmplan.profiles.probes.json_fields import fields, text

# Python programs import their libraries before they print help: seconds the first time, remembered after it.
_HELP_S: Final = 60.0
_VERSION_S: Final = 10.0
_DAEMON_S: Final = 2.0
_MOST_BYTES: Final = 65536
_OLLAMA_PORT: Final = 11434
_OLLAMA_VERSION: Final = re.compile(r"version is (\S+)")
_LOOPBACK: Final = "127.0.0.1"
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
IK_VERSION: Final = re.compile(r"version: (\d+ \(\w+\))")
# Its own layout of help: both spellings, indented, `  -rtr,  --run-time-repack`.
_IK_OPTION: Final = re.compile(r"^ +(?:-[\w-]+,? +)?(--[a-z][\w-]*)", re.MULTILINE)
_IK_ONLY: Final = "--run-time-repack"
OPTION: Final = re.compile(r"^ +(--[a-z][\w-]*)", re.MULTILINE)  # argparse


def find_mlx_lm(host: Host) -> Engine | None:
    """`mlx_lm.server` on the PATH or beside this interpreter; None when there is none or it does not start."""
    program = read_places(host).programs.get("mlx_lm.server")
    if program is None:
        return None
    listed = host.run([program, "--help"], remember_for=program, timeout_s=_HELP_S)
    if not listed.ok:
        return None
    flags = frozenset(OPTION.findall(listed.stdout))
    return Engine(kind=EngineKind.MLX_LM, path=program, version=_installed_version(program, "mlx_lm"), flags=flags)


def find_ollama(host: Host) -> Engine | None:
    """The daemon that runs (`path` is its address), or the program that starts one; None without both.

    Raises:
        InputError: OLLAMA_HOST names another machine.
    """
    url = ollama_address(host.env.get("OLLAMA_HOST", ""))
    running = host.call("ollama_daemon", lambda: _daemon_version(url))
    if isinstance(running, str):
        return Engine(kind=EngineKind.OLLAMA, path=url, version=running)
    program = read_places(host).programs.get("ollama")
    if program is None:
        return None
    done = host.run([program, "--version"], timeout_s=_VERSION_S)
    said = _OLLAMA_VERSION.search(done.stdout + done.stderr)
    return Engine(kind=EngineKind.OLLAMA, path=program, version=said[1] if said else None)


def find_ik_llama(host: Host) -> Engine | None:
    """ik_llama.cpp's server under the name `ik-llama-server`; None when there is none or it does not start."""
    program = read_places(host).programs.get("ik-llama-server")
    if program is None:
        return None
    said = IK_VERSION.search(_printed(host, program, "--version"))
    flags = frozenset(_IK_OPTION.findall(_printed(host, program, "--help")))
    if said is None or _IK_ONLY not in flags:
        return None
    return Engine(kind=EngineKind.IK_LLAMA, path=program, version=said[1], flags=flags, backends=("cpu",))


def _printed(host: Host, program: str, argument: str) -> str:
    done = host.run([program, argument], remember_for=program)
    return f"{done.stdout}\n{done.stderr}"


def ollama_address(given: str) -> str:
    """Where the daemon is by OLLAMA_HOST (`host`, `host:port`, an address; its default without).

    Raises:
        InputError: it is not on this machine, or no address.
    """
    address = urlsplit(given if "://" in given else f"http://{given.strip()}")
    try:
        port = address.port or _OLLAMA_PORT
    except ValueError:
        message = f"OLLAMA_HOST={given} is no address"
        raise InputError(message, hint="OLLAMA_HOST=127.0.0.1:11434") from None
    name = address.hostname or _LOOPBACK
    if name in _ANY_ADDRESS:  # as a server reads it: all addresses; a client takes this machine's own
        name = _LOOPBACK
    if name not in {_LOOPBACK, "localhost", "::1"}:
        message = f"OLLAMA_HOST={given} is another machine, the plan is for this one"
        raise InputError(message, hint="unset OLLAMA_HOST, or plan and run there", facts={"host": name})
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _daemon_version(url: str) -> str | None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or _LOOPBACK, address.port, timeout=_DAEMON_S)
    try:
        connection.request("GET", "/api/version")
        return text(fields(json.loads(connection.getresponse().read(_MOST_BYTES))).get("version"))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _installed_version(program: str, distribution: str) -> str | None:
    """The version in the environment that a Python program belongs to, read off its folder of metadata."""
    environment = Path(program).resolve().parent.parent
    found = sorted(environment.glob(f"lib/python3*/site-packages/{distribution}-*.dist-info"))
    return found[-1].name.removesuffix(".dist-info").partition("-")[2] if found else None
