"""The device catalog: every row is complete, sourced and consistent, and found by the names people and drivers use."""

import re

import pytest

from glmplan.errors import ProfileError
from glmplan.machine import Vendor
from glmplan.profiles.device_listing import listing
from glmplan.profiles.device_rows import (
    GPU_FILES,
    HOST_FILE,
    Device,
    HostPlatform,
    all_devices,
    all_host_platforms,
    device_reported_as,
    devices_named,
)
from glmplan.profiles.store import shipped
from glmplan.units import GIB

ROWS = all_devices()
PLATFORMS = all_host_platforms()


def test_all_149_rows_are_shipped_once() -> None:
    assert len(ROWS) + len(PLATFORMS) == 149
    assert len({row.id for row in ROWS} | {row.id for row in PLATFORMS}) == 149


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_device_row_is_complete_and_sourced(row: Device) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", row.id)
    assert row.name
    assert row.aliases
    assert row.memory_options_bytes == tuple(sorted(set(row.memory_options_bytes)))
    assert all(4 * GIB <= size <= 512 * GIB for size in row.memory_options_bytes)
    assert row.sources
    assert all(len(source) > 10 for source in row.sources)
    assert row.confidence
    assert row.bandwidth_bytes_per_s is None or 60e9 < row.bandwidth_bytes_per_s < 10e12
    assert row.peak_flops_per_s is None or 1e12 < row.peak_flops_per_s < 3e15
    assert (row.compute_capability is None) == (row.vendor is Vendor.APPLE)
    assert bool(row.gpu_cores) == (row.vendor is Vendor.APPLE)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.bus_bits and row.max_memory_clock_mhz], ids=lambda row: row.id
)
def test_bandwidth_is_clock_times_width_where_both_are_known(row: Device) -> None:
    computed = 2 * (row.max_memory_clock_mhz or 0) * 1e6 * (row.bus_bits or 0) / 8
    assert row.bandwidth_bytes_per_s == pytest.approx(computed, rel=0.03)


@pytest.mark.parametrize("row", [row for row in ROWS if row.reported_total_bytes], ids=lambda row: row.id)
def test_what_the_driver_reports_is_at_most_what_is_sold(row: Device) -> None:
    reported = row.reported_total_bytes or 0
    # H100 and its successors are sold in decimal GB.
    assert min(abs(reported - size) / size for size in row.memory_options_bytes) < 0.07


@pytest.mark.parametrize("row", PLATFORMS, ids=lambda row: row.id)
def test_a_host_platform_is_channels_times_8_bytes_times_transfers(row: HostPlatform) -> None:
    assert row.bandwidth_bytes_per_s == pytest.approx(row.channels * 8 * row.mega_transfers_per_s * 1e6, rel=1e-6)
    assert row.sources
    assert row.examples


def test_every_source_named_by_a_row_is_written_out_and_every_written_one_is_named() -> None:
    for name in (*GPU_FILES, HOST_FILE):
        document = shipped("devices", name)
        named = {key for row in document["devices"] for key in row["sources"]}
        assert named == set(document["sources"]), name


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", "nvidia-geforce-rtx-4060-ti"),
        ("NVIDIA GeForce RTX 4060", "nvidia-geforce-rtx-4060"),
        ("GeForce RTX 3090", "nvidia-geforce-rtx-3090"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "nvidia-geforce-rtx-4070-ti-super"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "nvidia-geforce-rtx-4090-laptop"),
        ("NVIDIA GeForce RTX 4090 D", "nvidia-geforce-rtx-4090-d"),
        ("NVIDIA H100 PCIe", "nvidia-h100-pcie"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("NVIDIA L40S-6Q", "nvidia-l40s"),
        ("NVIDIA GB10", "nvidia-gb10"),
        ("Apple M1 Max", "apple-m1-max-24c"),
        # A name that continues with another word is another device.
        ("NVIDIA GeForce RTX 3060 Laptop GPU", None),
        ("NVIDIA GeForce GTX 1660 Ti", None),
        ("Apple M1 (Virtual)", None),
    ],
)
def test_reported_names_match_the_longest_alias(reported: str, expected: str | None) -> None:
    row = device_reported_as(reported)
    assert (row.id if row else None) == expected


def test_rows_that_share_a_name_are_told_apart_by_memory_and_cores() -> None:
    thor_64 = device_reported_as("NVIDIA Thor", memory_total_bytes=62 * GIB)
    thor_128 = device_reported_as("NVIDIA Thor", memory_total_bytes=123 * GIB)
    m4_max = device_reported_as("Apple M4 Max", memory_total_bytes=48 * GIB, gpu_cores=40)
    assert thor_64 is not None
    assert thor_64.id == "nvidia-jetson-thor-t4000"
    assert thor_128 is not None
    assert thor_128.id == "nvidia-jetson-thor-t5000"
    assert m4_max is not None
    assert m4_max.id == "apple-m4-max-40c"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_can_be_typed(row: Device) -> None:
    assert row in devices_named(row.id)
    assert row in devices_named(row.name)
    for alias in row.aliases:
        assert row in devices_named(alias)


@pytest.mark.parametrize(
    "typed", ["rtx-4090", "RTX 4090", "rtx4090", "4090", "GeForce RTX 4090", "nvidia geforce rtx 4090"]
)
def test_one_card_has_many_spellings(typed: str) -> None:
    assert [row.id for row in devices_named(typed)] == ["nvidia-geforce-rtx-4090"]


def test_the_listing_names_each_device_so_that_on_finds_it_again() -> None:
    found = listing()
    assert len(found.devices) == 132
    assert len(found.host_platforms) == 17
    for device in found.devices:
        assert [row.id for row in devices_named(device.name_for_on)] == [device.id]


def test_a_listing_of_nothing_is_an_error_with_a_hint() -> None:
    with pytest.raises(ProfileError, match="voodoo") as caught:
        listing("voodoo 2")
    assert "glmplan devices" in caught.value.hint
