"""The catalog as `glmplan devices` shows it."""

import re

from glmplan.catalog_listing import DeviceListing, ListedDevice, ListedPlatform
from glmplan.errors import ProfileError
from glmplan.profiles.device_rows import Device, all_devices, all_host_platforms, devices_named, slug, slugs


def listing(part: str = "") -> DeviceListing:
    """Rows whose id or any name holds `part`.

    Raises:
        ProfileError: there is none.
    """
    wanted = slug(part)
    devices = tuple(row for row in all_devices() if any(wanted in spelling for spelling in slugs(row)))
    platforms = tuple(row for row in all_host_platforms() if wanted in slug(f"{row.id} {row.name} {row.examples}"))
    if not devices and not platforms:
        message = f"no device whose name holds {part!r}"
        raise ProfileError(
            message, hint="`glmplan devices` lists all; --on also takes bare sizes: gpu:24GiB, cpu:32GiB"
        )
    return DeviceListing(
        devices=tuple(_listed(row) for row in devices),
        host_platforms=tuple(
            ListedPlatform(
                id=row.id,
                name=row.name,
                channels=row.channels,
                mega_transfers_per_s=row.mega_transfers_per_s,
                bandwidth_bytes_per_s=row.bandwidth_bytes_per_s,
                examples=row.examples,
                confidence=row.confidence,
                sources=row.sources,
            )
            for row in platforms
        ),
    )


def _listed(row: Device) -> ListedDevice:
    return ListedDevice(
        id=row.id,
        name=row.name,
        vendor=row.vendor.value,
        kind=row.kind,
        aliases=row.aliases,
        memory_options_bytes=row.memory_options_bytes,
        bandwidth_bytes_per_s=row.bandwidth_bytes_per_s,
        peak_flops_per_s=row.peak_flops_per_s,
        compute_capability=row.compute_capability,
        name_for_on=_shortest(row),
        confidence=row.confidence,
        sources=row.sources,
        note=row.note,
    )


def _shortest(row: Device) -> str:
    """The id without the vendor's prefixes where that means this row and no other; else the id."""
    short = re.sub(r"^nvidia-(geforce-)?", "", row.id)
    return short if devices_named(short) == (row,) else row.id
