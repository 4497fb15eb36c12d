"""Settings of other tools that reach an engine: llama.cpp's system-wide files, LLAMA_ARG_*, Ollama's service."""

import re
from collections.abc import Iterator
from typing import Final

from glmplan.diagnosis import Configuration, Setting
from glmplan.profiles.host import Host
from glmplan.profiles.scrub import SECRET

SYSTEM_FILE: Final = "/etc/llama.cpp/config.ini"
OLLAMA_UNITS: Final = "/etc/systemd/system/ollama.service.d"
OLLAMA_UNIT: Final = "/etc/systemd/system/ollama.service"
_OLLAMA: Final = ("OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH")


def read_configuration(host: Host) -> Configuration:
    """Settings in the order in which llama.cpp applies them: system file, user file, environment; secrets left out."""
    settings: dict[str, Setting] = {}
    for path in (SYSTEM_FILE, user_file(host)):
        for setting in _ini(host, path):
            settings[setting.name] = setting
    for name, value in sorted(host.env.items()):
        if name.startswith("LLAMA_ARG_") and not SECRET.search(name):
            settings[name] = Setting(name=name, value=value, origin="environment")
    return Configuration(llama_cpp=tuple(settings.values()), ollama=tuple(_ollama(host)))


def user_file(host: Host) -> str:
    """llama.cpp's file of this user."""
    folder = host.env.get("XDG_CONFIG_HOME") or f"{host.env.get('HOME', '/home/user')}/.config"
    return f"{folder}/llama.cpp/config.ini"


def _ini(host: Host, path: str) -> Iterator[Setting]:
    """Keys of the default section and of [*]: the only ones applied to every program; `;` and `#` begin comments."""
    applies = True
    for line in (host.read(path) or "").splitlines():
        text = re.split(r"[;#]", line, maxsplit=1)[0].strip()
        if text.startswith("["):
            applies = text in {"[*]", "[default]"}
            continue
        name, mark, value = text.partition("=")
        if mark and applies and name.strip() and not SECRET.search(name):
            yield Setting(name=name.strip(), value=value.strip(), origin=path)


def _ollama(host: Host) -> Iterator[Setting]:
    """The service's own environment counts; without a service, this environment."""
    units = [OLLAMA_UNIT, *(f"{OLLAMA_UNITS}/{name}" for name in host.folder(OLLAMA_UNITS) if name.endswith(".conf"))]
    found: dict[str, Setting] = {}
    for path in units:
        for name, value in re.findall(
            r'^Environment="?(OLLAMA_\w+)=([^"\n]*)"?\s*$', host.read(path) or "", re.MULTILINE
        ):
            if name in _OLLAMA:
                found[name] = Setting(name=name, value=value, origin=path)
    for name in _OLLAMA:
        if name in host.env and name not in found:
            found[name] = Setting(name=name, value=host.env[name], origin="environment")
    yield from found.values()
