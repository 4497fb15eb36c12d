"""What the documents say can be typed: commands parse and run, links lead somewhere, written pages are current."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import typer

from glmplan.cli import application
from glmplan.launchers.export.formats import FORMATS

app = application()

ROOT: Final = Path(__file__).parents[2]
REFERENCE: Final = ROOT / "docs" / "commands.md"
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE: Final = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Fences of other languages are files, not commands.
TYPED: Final = {"", "sh", "console"}
INLINE: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
REPOSITORY_PATH: Final = re.compile(r"(?:tests|docs|scripts|profiles|planner|launchers|glmplan)/[\w./-]+\.\w+")
# Answers from the command line alone: the same on every machine, in a moment.
CHEAP: Final = {"plan", "estimate"}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words after `glmplan` of every command a reader may copy: fenced lines, and code inside sentences."""
    outside = FENCE.sub("", text)
    blocks = [block for language, block in FENCE.findall(text) if language in TYPED]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    for line in [*lines, *INLINE.findall(outside)]:
        words = shlex.split(line.partition("#")[0]) if "glmplan " in line else []
        for index, word in enumerate(words[:-1]):
            if Path(word).name == "glmplan" and words[index + 1] not in {"COMMAND", "--version"}:
                yield words[index + 1 :]


WRITTEN: Final = sorted(
    {
        (page.name, shlex.join(words))
        for page in PAGES
        if page != REFERENCE
        for words in commands_in(page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize(("page", "line"), WRITTEN)
def test_every_command_in_the_documents_parses(page: str, line: str) -> None:
    name, *words = shlex.split(line)
    command: Any = typer.main.get_command(app)
    assert name in command.commands, page
    command = command.commands[name]
    if hasattr(command, "commands"):  # a group; alone it shows its help
        if not words:
            return
        assert words[0] in command.commands, page
        command, (name, *words) = command.commands[words[0]], words
    context = command.make_context(name, words)
    assert context.params is not None


# DIR, FILE and the like stand for something of the reader's.
RUNNABLE: Final = [
    line
    for _, line in WRITTEN
    if line.split()[0] in CHEAP and "--on" in line.split() and not re.search(r"\b[A-Z]{3,}\b", line)
]


@pytest.mark.parametrize("line", sorted({*RUNNABLE, "devices"}))
def test_commands_that_need_no_machine_run(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write the file that the document names
    assert app(shlex.split(line), standalone_mode=False) in {None, 0}
    assert capsys.readouterr().out.strip()


def test_there_are_commands_to_try() -> None:
    assert RUNNABLE
    assert {"README.md"} <= {page for page, _ in WRITTEN}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in LINK.findall(FENCE.sub("", text)) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    # Written are templates such as tests/goldens/plans/*.json too: only whole paths are looked for.
    paths = [path for code in INLINE.findall(text) for path in code.split() if REPOSITORY_PATH.fullmatch(path)]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_headings_that_links_name_are_there() -> None:
    for page in PAGES:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            file, mark, anchor = link.partition("#")
            if mark and "://" not in link:
                target = (page.parent / file) if file else page
                headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page.name}: {link}"


def test_pages_that_messages_point_to_are_there() -> None:
    for folder in ("glmplan", "planner", "profiles", "launchers"):
        for source in (ROOT / folder).rglob("*.py"):
            for path in re.findall(r"\bdocs/[\w-]+\.md", source.read_text(encoding="utf-8")):
                assert (ROOT / path).is_file(), f"{source}: {path}"


def test_extras_and_groups_in_the_documents_are_in_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        extras = set(re.findall(r"--extra (\w+)|'(?:glmplan|\.)\[(\w+)\]'", text))
        named = {one or other for one, other in extras}
        assert named <= set(project["project"]["optional-dependencies"]), page.name
        assert set(re.findall(r"--group (\w+)", text)) <= set(project["dependency-groups"]), page.name


def generator(name: str = "docs_commands") -> ModuleType:
    """A script that writes a page."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_is_current() -> None:
    made = generator()
    assert list(made.outdated()) == [], "run: python scripts/docs_commands.py"
    assert REFERENCE.read_text(encoding="utf-8") == made.page()


@pytest.mark.parametrize("script", ["docs_exports", "docs_schema"])
def test_pages_made_from_the_code_are_current(script: str) -> None:
    made = generator(script)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), f"run: python scripts/{script}.py"


def test_every_export_has_an_example_and_a_line_in_the_table() -> None:
    examples = (ROOT / "docs" / "export-examples.md").read_text(encoding="utf-8")
    table = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", examples, re.MULTILINE) == list(FORMATS)
    assert [name for name in FORMATS if f"`{name}`" not in table] == []


def test_the_command_reference_names_what_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    """The reference is made from the functions; `--help` is what people see: both name the same options."""
    sections = re.split(r"^## ", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0] for section in sections] == [name for name, _ in generator().commands()]
    for section in sections:
        app([*section.partition("\n")[0].split(), "--help"], standalone_mode=False)
        shown = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
        written = set(re.findall(r"^\| `(?:-\w, )?(--[\w-]+)", section, re.MULTILINE))
        assert written == shown, section.partition("\n")[0]
