"""The device catalog as a table."""

from typing import TYPE_CHECKING

from glmplan.catalog_listing import DeviceListing
from glmplan.units import GIB

if TYPE_CHECKING:
    from rich.console import Console


def show_devices(listing: DeviceListing, console: "Console | None" = None) -> None:
    """Print `listing` to stdout, or to `console`."""
    from rich.console import Console
    from rich.table import Table

    console = console or Console(highlight=False)
    if listing.devices:
        table = Table(box=None, pad_edge=False)
        table.add_column("--on", no_wrap=True)
        for column in ("GiB", "GB/s", "TFLOPS"):
            table.add_column(column, justify="right", no_wrap=column != "GiB", overflow="fold")
        table.add_column("confidence", no_wrap=True)
        for row in listing.devices:
            sizes = ", ".join(f"{size / GIB:g}" for size in row.memory_options_bytes)
            bandwidth, peak = _scaled(row.bandwidth_bytes_per_s, 1e9), _scaled(row.peak_flops_per_s, 1e12)
            table.add_row(row.name_for_on, sizes, bandwidth, peak, row.confidence)
        console.print(table)
    if listing.host_platforms:
        console.print("\nHost memory, assumed where it can be neither read nor measured:")
        for platform in listing.host_platforms:
            clock = f"{platform.channels} x {platform.mega_transfers_per_s} MT/s"
            speed = f"{clock}, {platform.bandwidth_bytes_per_s / 1e9:g} GB/s"
            console.print(f"  {platform.name}: {speed} ({platform.examples})", markup=False)


def _scaled(value: int | None, unit: float) -> str:
    return "unknown" if value is None else f"{value / unit:g}"
