"""Services of the operating system: a systemd unit for Linux, a launchd agent for macOS."""

import plistlib
from pathlib import PurePosixPath
from typing import Any, Final
from xml.sax.saxutils import escape

from glmplan.errors import NotExpressible
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comment_lines,
    comments,
    model_path,
    require_absolute,
)
from glmplan.launchers.export.quoting import refuse_characters, systemd_variable, systemd_word
from glmplan.launchers.export.server_knobs import knobs_of, words_of
from glmplan.units import MIB

_LABEL: Final = "dev.glmplan.llama-server"
_HOMES: Final = ("home", "root", "Users")
_ASSUMED: Final = {"systemd": "/usr/local/bin/llama-server", "launchd": "/opt/homebrew/bin/llama-server"}
_CREDENTIAL: Final = "%d/api-key"


def systemd(request: ExportRequest) -> Exported:
    """A unit: of the system with a user of its own, or of the user when files lie in a home folder.

    Raises:
        NotExpressible: a path that systemd would change.
    """
    path, assumed = model_path(request.plan)
    require_absolute(path, "a service")
    server, guessed = _server(request, "systemd")
    losses = assumed + guessed
    personal = any(_in_a_home(place) for place in (path, server, request.endpoint.api_key_file or "/"))
    sections = {
        "Unit": [
            "Description=GLM-4.7-Flash by llama-server",
            "After=network-online.target",
            "Wants=network-online.target",
        ],
        "Service": [*_service(request, server), *([] if personal else _confinement(request))],
        "Install": [f"WantedBy={'default' if personal else 'multi-user'}.target"],
    }
    if personal:  # a user's manager knows no network-online.target
        sections["Unit"] = sections["Unit"][:1]
    body = "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())
    folder = "~/.config/systemd/user" if personal else "/etc/systemd/system"
    user = " --user" if personal else ""
    note = f"put into {folder}/glm-4.7-flash.service, then systemctl{user} enable --now glm-4.7-flash"
    return Exported(text=comments(request, losses, also=(note,)) + body, suffix=".service", losses=losses)


def _service(request: ExportRequest, server: str) -> list[str]:
    endpoint, placement = request.endpoint, request.placement
    knobs = [knob for knob in knobs_of(request) if knob.spellings[0] != "--api-key-file"]
    words = [systemd_word(word) for word in (server, *words_of(knobs))]
    if endpoint.api_key_file is not None:
        words += ["--api-key-file", _CREDENTIAL]
    return [
        "Type=exec",
        "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID",
        *(f"Environment={name}={value}" for name, value in placement.variables.items()),
        *(
            (f"Environment={systemd_variable('LD_LIBRARY_PATH', request.library_path)}",)
            if request.library_path
            else ()
        ),
        *((f"LoadCredential=api-key:{_credential(endpoint.api_key_file)}",) if endpoint.api_key_file else ()),
        "ExecStart=" + " ".join(words),
        "Restart=on-failure",
        "RestartSec=5",
        "OOMPolicy=stop",
        *(("LimitMEMLOCK=infinity",) if placement.use_mlock else ()),
    ]


def _confinement(request: ExportRequest) -> list[str]:
    """A user made for the service, read-only files, and no more main memory than the plan may use."""
    usable = next((device.usable_bytes for device in request.plan.memory.devices if device.id == "host"), None)
    return [
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "NoNewPrivileges=yes",
        *((f"MemoryMax={usable // MIB}M",) if usable else ()),
    ]


def launchd(request: ExportRequest) -> Exported:
    """An agent of the logged-in user, started at login and after a crash.

    Raises:
        NotExpressible: a value with a control character, which XML cannot hold.
    """
    path, assumed = model_path(request.plan)
    require_absolute(path, "an agent")
    server, guessed = _server(request, "launchd")
    losses = assumed + guessed + applying({
        "buffers in huge pages: macOS gives none": request.placement.huge_pages,
        "weights locked in memory: launchd takes no limit for it from an agent": request.placement.use_mlock
    })  # fmt: skip
    log = f"/tmp/{_LABEL}.log"  # noqa: S108 - an agent cannot name its user's folders
    document: dict[str, Any] = {
        "Label": _LABEL,
        "ProgramArguments": [_xml_safe(word) for word in (server, *words_of(knobs_of(request)))],
        **(
            {"EnvironmentVariables": {"DYLD_LIBRARY_PATH": _xml_safe(request.library_path)}}
            if request.library_path
            else {}
        ),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 30,
        "ProcessType": "Interactive",
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    text = plistlib.dumps(document, sort_keys=False).decode()
    note = f"put into ~/Library/LaunchAgents/{_LABEL}.plist, then launchctl bootstrap gui/$(id -u) FILE"
    lines = "".join(f"  {escape(line).replace('--', '- -')}\n" for line in comment_lines(request, losses, (note,)))
    head, _, body = text.partition("<plist")
    return Exported(text=f"{head}<!--\n{lines}-->\n<plist{body}", suffix=".plist", losses=losses)


def _server(request: ExportRequest, kind: str) -> tuple[str, tuple[str, ...]]:
    """Where llama-server lies; services find no program by its name alone."""
    if request.server is not None:
        return _absolute(request.server), ()
    path = _ASSUMED[kind]
    return path, (f"the place of llama-server is not known: {path} is assumed (--server PATH says where it is)",)


def _absolute(path: str) -> str:
    """`path`, if a service can start it.

    Raises:
        NotExpressible: it is relative, or has characters that a unit expands in the name of a program.
    """
    refuse_characters(path, "$%", "the name of a service's program")
    if not path.startswith("/"):
        message = f"a service cannot start {path}: it is no absolute path"
        raise NotExpressible(message, hint="--server /path/to/llama-server", facts={"server": path})
    return path


def _credential(path: str) -> str:
    refuse_characters(path, ":\\\"'" + "".join(map(chr, range(33))), "LoadCredential= of a unit")
    return path.replace("%", "%%")


def _in_a_home(path: str) -> bool:
    return PurePosixPath(path).parts[1:2] in {(name,) for name in _HOMES}


def _xml_safe(value: str) -> str:
    controls = "".join(map(chr, (*range(32), 127, 0xFFFE, 0xFFFF)))
    return refuse_characters(value, controls, "a property list")
