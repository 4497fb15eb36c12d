"""Display devices on the PCI bus, driver or not, from /sys."""

from glmplan.noun import noun
from glmplan.profiles.host import Host


@noun
class PciDisplay:
    """A display or 3D controller; ids are the upper-case hexadecimal of /sys (`10DE`, `1002`, `8086`)."""

    address: str
    vendor_id: str
    device_id: str
    driver: str | None


def read_displays(host: Host) -> tuple[PciDisplay, ...]:
    """Every device of PCI class 03 (display) or 12 (processing accelerator)."""
    found: list[PciDisplay] = []
    for address in host.folder("/sys/bus/pci/devices"):
        written = host.read(f"/sys/bus/pci/devices/{address}/uevent") or ""
        pairs = dict(line.split("=", 1) for line in written.splitlines() if "=" in line)
        kind = pairs.get("PCI_CLASS", "").zfill(6)
        vendor, _, device = pairs.get("PCI_ID", "").upper().partition(":")
        if kind[:2] in {"03", "12"} and vendor:
            found.append(PciDisplay(address=address, vendor_id=vendor, device_id=device, driver=pairs.get("DRIVER")))
    return tuple(found)
