"""What a system says of pages of 2 MiB, by tapes of the kernel's switch and of the C library."""

import json
from pathlib import Path

import pytest

from glmplan.profiles.probes.huge_pages import SWITCH, no_huge_pages
from glmplan.profiles.tape import TapeHost


@pytest.mark.parametrize(
    ("said", "library", "why"),
    [
        ("always [madvise] never", "glibc 2.36", None),
        ("always [madvise] never", "glibc 2.35.9000", None),
        ("[always] madvise never", "glibc 2.36", "unasked"),
        ("always madvise [never]", "glibc 2.36", "says never"),
        ("always [madvise] never", "glibc 2.31", "glibc 2.31"),
        ("always [madvise] never", "", "not GNU"),
        ("always [madvise] never", None, "only Linux"),
        (None, "glibc 2.36", "only Linux"),
    ],
)
def test_what_the_system_says_of_huge_pages(
    tmp_path: Path, said: str | None, library: str | None, why: str | None
) -> None:
    (tmp_path / "meta.yaml").touch()
    (tmp_path / "call").mkdir()
    (tmp_path / "call" / "c_library.json").write_text(json.dumps(library))
    if said is not None:
        switch = tmp_path / "read" / SWITCH.lstrip("/")
        switch.parent.mkdir(parents=True)
        switch.write_text(said)
    found = no_huge_pages(TapeHost(tmp_path))
    assert found is None if why is None else found is not None and why in found
