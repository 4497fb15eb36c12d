"""Which GPUs a CUDA process sees: NVML ignores `CUDA_VISIBLE_DEVICES`, so the rules are applied here.

Rules: NVIDIA's CUDA programming guide, environment variables; MIG user guide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from glmplan.noun import noun
from glmplan.profiles.probes.json_fields import Fields, items, text
from glmplan.profiles.probes.notes import Notes


@noun
class Unit:
    """What CUDA counts as one device: a whole GPU, or one MIG slice of it."""

    device: Fields
    piece: Fields | None = None

    @property
    def uuid(self) -> str | None:
        """The UUID that selects this unit."""
        return text((self.piece or self.device).get("uuid"))


def visible_units(devices: Sequence[Fields], env: Mapping[str, str], notes: Notes) -> list[Unit]:
    """The units a CUDA process sees, in its order."""
    written = env.get("CUDA_VISIBLE_DEVICES")
    if written is None:
        return _without_variable(devices, notes)
    chosen = _chosen(devices, written)
    hidden = len(devices) - len({id(unit.device) for unit in chosen})
    if hidden:
        notes.add("gpus", f"CUDA_VISIBLE_DEVICES={written} hides {hidden} of {len(devices)} NVIDIA GPUs",
                  "unset CUDA_VISIBLE_DEVICES to plan for all of them")  # fmt: skip
    if any(entry.strip().isdecimal() for entry in written.split(",")):
        _warn_of_order(devices, env, notes)
    return chosen


def _without_variable(devices: Sequence[Fields], notes: Notes) -> list[Unit]:
    whole = [Unit(device=device) for device in devices if not _slices(device)]
    if whole or not devices:
        return whole
    slices = [Unit(device=device, piece=piece) for device in devices for piece in _slices(device)]
    others = ", ".join(str(unit.piece.get("name") or unit.uuid) for unit in slices[1:] if unit.piece)
    if others:
        notes.add("gpus", f"a CUDA process sees one MIG slice, the first; not planned for: {others}",
                  "choose another with CUDA_VISIBLE_DEVICES=MIG-<uuid> (nvidia-smi -L)")  # fmt: skip
    return slices[:1]


def _slices(device: Fields) -> tuple[Fields, ...]:
    return items(device.get("mig_devices"))


def _chosen(devices: Sequence[Fields], written: str) -> list[Unit]:
    """Entries up to the first invalid one; a repeated entry is invalid."""
    chosen: list[Unit] = []
    for entry in (part.strip() for part in written.split(",")):
        unit = _slice_named(devices, entry) if entry.startswith("MIG-") else _device_named(devices, entry)
        if unit is None or any(unit.uuid == known.uuid and unit.device is known.device for known in chosen):
            break
        chosen.append(unit)
        if unit.piece is not None:  # one MIG slice per process
            break
    return chosen


def _device_named(devices: Sequence[Fields], entry: str) -> Unit | None:
    if entry.isdecimal():
        matches = [devices[int(entry)]] if int(entry) < len(devices) else []
    elif entry.startswith("GPU-"):
        matches = [device for device in devices if str(device.get("uuid")).startswith(entry)]
    else:
        matches = []
    if len(matches) != 1:
        return None
    slices = _slices(matches[0])
    return Unit(device=matches[0], piece=slices[0] if slices else None)


def _slice_named(devices: Sequence[Fields], entry: str) -> Unit | None:
    matches = [
        Unit(device=device, piece=piece)
        for device in devices
        for piece in _slices(device)
        if str(piece.get("uuid")).startswith(entry)
    ]
    return matches[0] if len(matches) == 1 else None


def _warn_of_order(devices: Sequence[Mapping[str, Any]], env: Mapping[str, str], notes: Notes) -> None:
    if env.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and len({device.get("name") for device in devices}) > 1:
        notes.add(
            "gpus",
            "these numbers were read in PCI order, but CUDA counts unlike GPUs fastest first",
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID in CUDA_VISIBLE_DEVICES",
        )
