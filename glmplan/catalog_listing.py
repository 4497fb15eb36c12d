"""The JSON of `glmplan devices`: `glmplan/devices/1`."""

from typing import Final, Literal

from glmplan.noun import noun

DEVICES_SCHEMA: Final = "glmplan/devices/1"


@noun
class ListedDevice:
    """A device of the catalog; `name_for_on` is the shortest text that means this very row."""

    id: str
    name: str
    vendor: str
    kind: str
    aliases: tuple[str, ...]
    memory_options_bytes: tuple[int, ...]
    bandwidth_bytes_per_s: int | None
    peak_flops_per_s: int | None
    compute_capability: str | None
    name_for_on: str
    confidence: str
    sources: tuple[str, ...]
    note: str | None


@noun
class ListedPlatform:
    """A kind of host memory, assumed when nothing better is known."""

    id: str
    name: str
    channels: int
    mega_transfers_per_s: int
    bandwidth_bytes_per_s: int
    examples: str
    confidence: str
    sources: tuple[str, ...]


@noun
class DeviceListing:
    """Every matching row."""

    schema: Literal["glmplan/devices/1"] = DEVICES_SCHEMA
    devices: tuple[ListedDevice, ...]
    host_platforms: tuple[ListedPlatform, ...]
