"""What probes make of text: kernel lists, versions, options, DIMMs, page counts, Metal's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.profiles.probes.bandwidth import copy_bytes_per_s, dimm_bandwidth
from glmplan.profiles.probes.engine import parse_options, parse_version
from glmplan.profiles.probes.json_fields import digits, fields, flag, integer, items, number, sequence, text
from glmplan.profiles.probes.metal import fraction_of
from glmplan.profiles.probes.platform import cpu_list
from glmplan.units import GIB


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        ("0-3", (0, 1, 2, 3)),
        ("0-1,8-9\n", (0, 1, 8, 9)),
        ("5", (5,)),
        ("", ()),
        (None, ()),
        ("a-b", ()),
        ("0-99999999", ()),
        ("3-", (3,)),
    ],
)
def test_cpu_lists(written: str | None, numbers: tuple[int, ...]) -> None:
    assert cpu_list(written) == numbers


@given(st.text())
def test_no_text_breaks_a_cpu_list(written: str) -> None:
    assert all(number >= 0 for number in cpu_list(written))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("version: 8123 (a1b2c3d)\nbuilt with cc", ("b8123", "8123", "a1b2c3d")),
        ("version: 0.5.0-dev (build 1, commit 0c1e570)\n", ("0.5.0-dev", "1", "0c1e570")),
        ("ggml_cuda_init: found 1 CUDA devices:\nversion: 7917 (91ea44e89)\n", ("b7917", "7917", "91ea44e89")),
        ("version: unknown", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_versions_of_llama_server_old_and_new(printed: str, expected: tuple[str | None, ...]) -> None:
    assert parse_version(printed) == expected


HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, see --fit for -1)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
--cpu-strict <0|1>                      use strict CPU placement (see -C)
--no-context-shift                      disable context shift, not -cs
"""


def test_options_are_those_a_line_begins_with() -> None:
    assert parse_options(HELP) == {
        "-h", "--help", "--usage", "-c", "--ctx-size", "-fa", "--flash-attn", "-ngl", "--gpu-layers", "--n-gpu-layers",
        "--cpu-strict", "--no-context-shift",
    }  # fmt: skip


def dimm(size: str, speed: int, *, bank: str = "BANK 0", width: int = 64, rated: int = 6400) -> str:
    return (
        f"Memory Device\n\tData Width: {width} bits\n\tSize: {size}\n\tBank Locator: {bank}\n"
        f"\tSpeed: {rated} MT/s\n\tConfigured Memory Speed: {speed} MT/s\n\n"
    )


def test_dimms_count_by_configured_speed() -> None:
    assert dimm_bandwidth(dimm("32 GB", 5600) + dimm("32 GB", 5600)) == 2 * 8 * 5_600_000_000


def test_dimms_on_one_channel_count_once() -> None:
    four = "".join(dimm("32 GB", 5600, bank=f"P0 CHANNEL {name}") for name in "AABB")
    assert dimm_bandwidth(four) == 2 * 8 * 5_600_000_000


def test_soldered_parts_are_narrow() -> None:
    assert dimm_bandwidth("".join(dimm("8 GB", 6400, width=32) for _ in range(4))) == 102_400_000_000


@pytest.mark.parametrize("printed", ["", "Permission denied", "Memory Device\n\tSize: No Module Installed\n"])
def test_no_dimms_is_not_known(printed: str) -> None:
    assert dimm_bandwidth(printed) is None


@pytest.mark.parametrize(
    ("gib", "version", "megabytes"),
    [
        # recommendedMaxWorkingSetSize as llama.cpp logs it, 10^6 bytes
        (8, "14.5", 5726.63),
        (16, "15.1", 11453.25),
        (24, "15.0", 17179.89),
        (32, "13.2", 22906.50),
        (36, "15.3", 28991.03),
        (48, "14.0", 38654.71),
        (64, "15.5", 51539.61),
        (192, "14.1", 154618.82),
        (16, "26.0", 12713.12),
        (18, "26.1", 14302.25),
        (24, "26.0", 19069.67),
        (32, "26.5.1", 26800.60),
        (36, "26.0", 30150.67),
        (48, "26.4", 40200.90),
        (64, "26.0", 55662.79),
        (128, "26.2", 115448.73),
    ],
)
def test_the_rules_reproduce_every_published_metal_limit(gib: int, version: str, megabytes: float) -> None:
    fraction, _ = fraction_of(gib * GIB, version)
    assert gib * GIB * fraction / 1e6 == pytest.approx(megabytes, rel=2e-6)


@pytest.mark.parametrize("version", [None, "", "x.y"])
def test_an_unknown_macos_takes_the_lower_rule(version: str | None) -> None:
    assert fraction_of(64 * GIB, version)[0] == pytest.approx(0.75)


def test_between_published_sizes_the_lower_fraction_counts() -> None:
    assert fraction_of(96 * GIB, "26.0")[0] == pytest.approx(0.81)
    assert fraction_of(512 * GIB, "26.0")[0] == pytest.approx(0.84)


def test_a_measured_copy_is_a_plausible_speed() -> None:
    assert 1e6 < copy_bytes_per_s(threads=1, seconds=0.02) < 1e12


def test_json_of_another_type_is_absent() -> None:
    assert fields([1]) == {}
    assert items({"a": 1}) == ()
    assert items([1, {"a": 1}]) == ({"a": 1},)
    assert sequence("ab") == ()
    assert integer(True) is None
    assert integer(1.5) is None
    assert number("1") is None
    assert number(2) == 2.0
    assert text("  ") is None
    assert flag(1) is None
    assert digits("12") == 12
    assert digits("-1") is None
    assert digits("9" * 21) is None
