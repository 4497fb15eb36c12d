"""Whether a program gets pages of 2 MiB from Linux by asking through its C library.

The kernel's switch is transparent_hugepage/enabled (Documentation/admin-guide/mm/transhuge.rst); glibc asks from 2.35
on where `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` says so (its manual, Memory Allocation Tunables).
"""

import os
from typing import Final

from glmplan.profiles.host import Host

SWITCH: Final = "/sys/kernel/mm/transparent_hugepage/enabled"
_GLIBC_THAT_ASKS: Final = (2, 35)


def no_huge_pages(host: Host) -> str | None:
    """Why a program cannot ask this system for pages of 2 MiB through its C library; None: it can."""
    said = host.read(SWITCH)
    spoken = host.call("c_library", _c_library)
    if said is None or not isinstance(spoken, str):
        return "only Linux with the GNU C library gives them when asked"
    if "[madvise]" not in said:
        return "the system gives them unasked" if "[always]" in said else f"{SWITCH} says never"
    library, _, version = spoken.partition(" ")
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC_THAT_ASKS:
        return f"the C library is {library or 'not GNU'} {version}, and glibc asks for them from 2.35"
    return None


def _c_library() -> str | None:
    """Name and version of the GNU C library, empty for another one; None where the system has no such question."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError, AttributeError):
        return None
