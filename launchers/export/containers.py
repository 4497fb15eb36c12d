"""Containers: llama.cpp's published images under Docker Compose and as a Podman quadlet."""

from typing import Any, Final

from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    is_mac,
    model_path,
    path_of,
    refuse,
    require_absolute,
)
from glmplan.launchers.export.quoting import compose as escaped
from glmplan.launchers.export.quoting import refuse_characters, systemd_word
from glmplan.launchers.export.server_knobs import knobs_of, words_of
from glmplan.plan import Plan

_INSIDE: Final = "/models"
_SECRET: Final = "/run/secrets/api_key"  # noqa: S105 - where the key is mounted, not the key
_ANY: Final = "0.0.0.0"  # noqa: S104 - inside the container; the host publishes on its own address


def compose(request: ExportRequest) -> Exported:
    """compose.yaml: one service that publishes its port on the address of the request.

    Raises:
        NotExpressible: the plan uses a GPU that containers cannot reach.
    """
    _refuse(request)
    endpoint, facts = request.endpoint, targets.of("containers")
    path, assumed = model_path(request.plan)
    source = path_of(require_absolute(path, "a container"))
    service: dict[str, Any] = {
        "image": facts["images"][_vendor(request.plan)],
        "restart": "unless-stopped",
        "command": [escaped(word) for word in _command(request, source.name)],
        "environment": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **request.placement.variables},
        "ports": [f"{_published(endpoint.host)}:{endpoint.port}:{endpoint.port}"],
        "volumes": [
            {"type": "bind", "source": escaped(str(source.parent)), "target": _INSIDE, "read_only": True},
        ],
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", f"http://127.0.0.1:{endpoint.port}/health"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{facts['load_timeout_s']}s",
        },
        **_compose_devices(request.plan),
    }
    document: dict[str, Any] = {"services": {"llama-server": service}}
    if request.placement.use_mlock:
        service["ulimits"] = {"memlock": -1}
    if endpoint.api_key_file is not None:
        service["secrets"] = ["api_key"]
        document["secrets"] = {"api_key": {"file": escaped(endpoint.api_key_file)}}
    losses = assumed + _losses(request)
    return Exported(
        text=comments(request, losses, also=("start with: docker compose -f FILE up -d",)) + yaml_text.dump(document),
        suffix=".yaml",
        losses=losses,
    )


def quadlet(request: ExportRequest) -> Exported:
    """A `.container` file for systemd: Podman 4.4 or newer turns it into a service of the user.

    Raises:
        NotExpressible: the plan uses a GPU that containers cannot reach, or a path that a volume cannot name.
    """
    _refuse(request)
    endpoint, facts, vendor = request.endpoint, targets.of("containers"), _vendor(request.plan)
    path, assumed = model_path(request.plan)
    source = path_of(require_absolute(path, "a container"))
    losses = assumed + _losses(request)
    container = [
        f"Image={facts['images'][vendor]}",
        *(f"AddDevice={device}" for device in _quadlet_devices(vendor)),
        *(("SecurityLabelDisable=true",) if vendor != "none" else ()),
        f"Volume={_volume(str(source.parent))}:{_INSIDE}:ro",
        *((f"Volume={_volume(endpoint.api_key_file)}:{_SECRET}:ro",) if endpoint.api_key_file else ()),
        *(("Ulimit=memlock=-1:-1",) if request.placement.use_mlock else ()),
        "Environment=CUDA_DEVICE_ORDER=PCI_BUS_ID",
        *(f"Environment={name}={value}" for name, value in request.placement.variables.items()),
        f"PublishPort={_published(endpoint.host)}:{endpoint.port}:{endpoint.port}",
        "Exec=" + " ".join(systemd_word(word) for word in _command(request, source.name)),
        f"HealthCmd=curl -fsS http://127.0.0.1:{endpoint.port}/health",
        "HealthInterval=10s",
        f"HealthStartPeriod={facts['load_timeout_s']}s",
    ]
    sections = {
        "Unit": ["Description=GLM-4.7-Flash by llama-server", "After=network-online.target"],
        "Container": container,
        "Service": ["Restart=on-failure", f"TimeoutStartSec={facts['load_timeout_s']}"],
        "Install": ["WantedBy=default.target"],
    }
    body = "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items())
    version = facts["podman_version"]
    note = f"needs Podman {version}: put into ~/.config/containers/systemd/, then systemctl --user daemon-reload"
    return Exported(text=comments(request, losses, also=(note,)) + body, suffix=".container", losses=losses)


def _command(request: ExportRequest, name: str) -> list[str]:
    knobs = knobs_of(request, model=f"{_INSIDE}/{name}", host=_ANY)
    words = words_of([knob for knob in knobs if knob.spellings[0] != "--api-key-file"])
    return [*words, "--api-key-file", _SECRET] if request.endpoint.api_key_file else words


def _refuse(request: ExportRequest) -> None:
    refuse(
        "a container",
        {"Apple's GPU (containers on a Mac run in a virtual machine without it)": (
            is_mac(request.plan) and request.placement.n_gpu_layers > 0
        )},
        hint="export launchd for a Mac",
    )  # fmt: skip


def _vendor(plan: Plan) -> str:
    """Which image: by the name of the first GPU the plan uses."""
    if plan.placement.n_gpu_layers == 0 or not plan.machine.gpus:
        return "none"
    name = plan.machine.gpus[0].name.lower()
    if any(word in name for word in ("amd", "radeon", "instinct")):
        return "amd"
    return "intel" if "intel" in name or "arc " in name else "nvidia"


def _compose_devices(plan: Plan) -> dict[str, Any]:
    vendor = _vendor(plan)
    if vendor == "nvidia":
        device = {"driver": "nvidia", "count": len(plan.machine.gpus), "capabilities": ["gpu"]}
        return {"deploy": {"resources": {"reservations": {"devices": [device]}}}}
    if vendor == "none":
        return {}
    devices = ["/dev/kfd", "/dev/dri"] if vendor == "amd" else ["/dev/dri"]
    return {"devices": [f"{path}:{path}" for path in devices], "group_add": ["video", "render"]}


def _quadlet_devices(vendor: str) -> tuple[str, ...]:
    return {"nvidia": ("nvidia.com/gpu=all",), "amd": ("/dev/kfd", "/dev/dri"), "intel": ("/dev/dri",)}.get(vendor, ())


def _published(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _volume(path: str) -> str:
    """A path on the left of `Volume=`: a colon would end it, and there is no way to escape one.

    Raises:
        NotExpressible: it has a colon, a dollar sign or a control character.
    """
    refuse_characters(path, ":$\\\"'" + "".join(map(chr, range(32))), "a volume of a quadlet")
    return path.replace("%", "%%")


def _losses(request: ExportRequest) -> tuple[str, ...]:
    image = targets.of("containers")["images"][_vendor(request.plan)]
    return applying({
        f"the engine build: {image} is whatever was published last; pin a tag or digest you have tried": True,
        "the address ::1: published on it, if the container engine has IPv6": request.endpoint.host == "::1",
    })  # fmt: skip
