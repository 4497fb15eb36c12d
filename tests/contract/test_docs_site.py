"""The documentation site, as far as it can be judged without building it; tests/browser looks at the built one."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from glmplan.commands.plan import make_plan
from glmplan.commands.situation import situation_of
from glmplan.diagnosis import Checkup
from glmplan.launchers.export import targets
from glmplan.machine import Machine
from glmplan.planner.diagnosis import PAGE, diagnose
from glmplan.profiles.catalog import resolve_machine

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(DOCS.glob("*.md"))
TOCTREE: Final = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED: Final = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What people have, or are told to install; the rest would be a misspelling.
PROGRAMS: Final = {
    "brew", "curl", "docker", "glmplan", "llama-server", "nvidia-smi", "ollama", "pip", "python", "python3", "ray",
    "sh", "sudo", "uv",
}  # fmt: skip


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_page_is_in_the_sites_tree() -> None:
    """By name, or by the line that docs/conf.py replaces with all pages that have no place of their own."""
    lines = [line for block in TOCTREE.findall(read("index.md")) for line in block.splitlines()]
    named = [line for line in lines if re.fullmatch(r"[\w-]+", line)]
    assert len(named) == len(set(named))
    assert [name for name in named if not (DOCS / f"{name}.md").is_file()] == []
    assert "<!-- the rest -->" in read("index.md")
    assert "<!-- the rest -->" in read("conf.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_one_title_and_no_heading_skips_a_level(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_addresses_are_whole_and_encrypted(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    addresses: list[str] = re.findall(r"\]\((\w+://[^)\s]*)\)", text)
    for address in addresses:
        parts = urlsplit(address)
        assert parts.scheme == "https", address
        assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}", parts.netloc), address


def typed_lines() -> Iterator[tuple[str, str]]:
    """Every line of a fence of commands, with the ones that go on joined."""
    for page in PAGES:
        for block in TYPED.findall(page.read_text(encoding="utf-8")):
            joined = block.replace("\\\n", " ")
            if page.name != "export-examples.md":
                yield from ((page.name, line.removeprefix("$ ")) for line in joined.splitlines() if line.strip())


@pytest.mark.parametrize(("page", "line"), sorted(set(typed_lines())))
def test_commands_to_copy_are_of_programs_that_exist(page: str, line: str) -> None:
    for part in re.split(r"&&|\|\||;|\|", line):
        words = [word for word in shlex.split(part, comments=True) if not re.match(r"[A-Z_]+=", word)]
        assert not words or words[0] in {*PROGRAMS, "."}, page
        if words and words[0] == "llama-server":
            options = {word for word in words if word.startswith("--")}
            assert options <= set(targets.llama_server_options()), page


def codes() -> set[str]:
    """Every name that a finding of the doctor can have."""
    found = {"unreadable-file"}
    for source in (ROOT / "planner").glob("diagnosis*.py"):
        found |= set(re.findall(r'code="([a-z-]+)"', source.read_text(encoding="utf-8")))
    warnings = (ROOT / "profiles" / "gguf_warnings.py").read_text(encoding="utf-8")
    return found | set(re.findall(r'_warn\(\s*"([a-z-]+)"', warnings))


def test_troubleshooting_tells_every_finding_of_the_doctor() -> None:
    told = read("troubleshooting.md").partition("## What the doctor finds")[2]
    assert set(re.findall(r"^### (.*)$", told, re.MULTILINE)) == codes()


def test_a_finding_names_its_part_of_the_page() -> None:
    machine: Machine = resolve_machine("rtx-4090", None)
    finding = diagnose(Checkup(machine=machine)).findings[0]
    assert finding.see == f"{PAGE}#{finding.code}"
    assert (ROOT / PAGE).is_file()


@pytest.mark.parametrize("platform", ["Mac", "NVIDIA", "CPU", "WSL", "Container"])
def test_the_quick_start_has_a_part_for_every_platform(platform: str) -> None:
    part = re.split(r"^## ", read("quickstart.md"), flags=re.MULTILINE)
    (own,) = [text for text in part if text.startswith(f"{platform}\n")]
    assert TYPED.search(own)


@pytest.mark.parametrize(
    ("on", "bits", "n_ctx"),
    [
        ("apple-m1:16", "2", 32768),
        ("apple-m2:24", "4", 32768),
        ("apple-m4-max:64", "8", 202752),
        ("cpu:24GiB", "4", 32768),
        ("gpu:12GiB", "4", 32768),
        ("gpu:16GiB", "4", 65536),
    ],
)
def test_what_the_quick_start_says_of_sizes_is_what_is_planned(on: str, bits: str, n_ctx: int) -> None:
    plan = make_plan(situation_of(on, None))
    named = re.search(r"\d", plan.model.quantization)
    assert named is not None
    assert named[0] == bits
    assert plan.placement.n_ctx >= n_ctx
