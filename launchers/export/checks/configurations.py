"""Configuration files and commands of other runtimes and of clients: by schemas taken from them, or our tables."""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.checks import grammars, json_schema, llama_server
from glmplan.launchers.export.checks.report import CheckReport, Tools
from glmplan.launchers.export.exported import Exported

_JSON_OPTIONS: Final = (
    "override-generation-config",
    "default-chat-template-kwargs",
    "speculative-config",
    "chat-template-args",
)
_MACRO: Final = re.compile(r"\$\{([a-zA-Z0-9_.-]+)\}")


def llama_cpp_python(exported: Exported, _: Tools) -> CheckReport:
    """The schema of its own settings model."""
    return by_schema(exported, "llama-cpp-python", "llama-cpp-python 0.3.36's settings model", json.loads)


def vllm_config(exported: Exported, _: Tools) -> CheckReport:
    """The options of its own parser."""
    return by_schema(exported, "vllm", "the options of vLLM 0.33.0's parser", yaml_text.load, _json_options)


def vllm_command(exported: Exported, _: Tools) -> CheckReport:
    """As the configuration, after the words that begin the command."""
    return _command(exported, "vllm", "the options of vLLM 0.33.0's parser", skip=3)


def sglang_config(exported: Exported, _: Tools) -> CheckReport:
    """The options of its own parser."""
    return by_schema(exported, "sglang", "the options of SGLang 0.5.23's parser", yaml_text.load, _json_options)


def sglang_command(exported: Exported, _: Tools) -> CheckReport:
    """As the configuration, after the words that begin the command."""
    return _command(exported, "sglang", "the options of SGLang 0.5.23's parser", skip=3)


def mlx_command(exported: Exported, _: Tools) -> CheckReport:
    """The options of its own parser, and that the one which crashes is not among them."""
    report = _command(exported, "mlx-lm", "the options of mlx-lm 0.32.2's parser", skip=1)
    crashes = ("--kv-bits crashes with this model",) if "--kv-bits" in exported.text else ()
    return CheckReport(by=report.by, problems=(*report.problems, *crashes))


def lm_studio_yaml(exported: Exported, _: Tools) -> CheckReport:
    """The frame by our reading of model.yaml, the fields by the types of the SDK."""
    by = ("our reading of model.yaml", "the fields of @lmstudio/sdk 2.0.0")
    return _parsed(by, lambda: _lm_studio(yaml_text.load(exported.text), "model-yaml", ("config",)))


def lm_studio_defaults(exported: Exported, _: Tools) -> CheckReport:
    """The fields by the types of the SDK."""
    by = ("the fields of @lmstudio/sdk 2.0.0",)
    return _parsed(by, lambda: _lm_studio(json.loads(exported.text), "defaults", ()))


def lms_commands(exported: Exported, _: Tools) -> CheckReport:
    """Our table of the options of `lms`."""
    tables = json_schema.schema("lm-studio")["commands"]

    def unknown() -> list[str]:
        lines = [grammars.shell_words(line) for line in exported.text.splitlines() if line.startswith("lms ")]
        return [
            f"lms {line[1]} has no option {word}"
            for line in lines
            for word in line[2:]
            if word.startswith("--") and word not in tables[line[1]]
        ]

    return _parsed(("our table of lms' options",), unknown)


def llama_swap(exported: Exported, tools: Tools) -> CheckReport:
    """Our reading of its schema, its macros, and llama-server for the command."""
    by = ("our reading of llama-swap's schema",)
    try:
        document: Any = yaml_text.load(exported.text)
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
    problems = json_schema.problems(document, json_schema.schema("llama-swap"))
    if problems:
        return CheckReport(by=by, problems=problems)
    (model,) = document["models"].values()
    unknown = {name for name in _MACRO.findall(model["cmd"]) if name != "PORT"}
    macros = tuple(f"unknown macro ${{{name}}}" for name in sorted(unknown))
    judged = llama_server.words(grammars.shell_words(model["cmd"].replace("${PORT}", "5800"))[1:], tools)
    return CheckReport(by=(*by, *judged.by), problems=(*macros, *judged.problems))


def aider_config(exported: Exported, _: Tools) -> CheckReport:
    """The options of Aider 0.86.2."""
    return by_schema(exported, "aider", "the options of Aider 0.86.2", yaml_text.load)


def aider_settings(exported: Exported, _: Tools) -> CheckReport:
    """The fields of Aider's ModelSettings."""
    fields = json_schema.schema("aider")["settings"]
    by = ("the fields of Aider 0.86.2's ModelSettings",)
    return _parsed(by, lambda: json_schema.problems(yaml_text.load(exported.text), fields))


def aider_metadata(exported: Exported, _: Tools) -> CheckReport:
    """The keys of LiteLLM's model list that Aider reads."""
    keys = json_schema.schema("aider")["metadata"]
    return _parsed(("our table of model metadata",), lambda: json_schema.problems(json.loads(exported.text), keys))


def variables(exported: Exported, _: Tools) -> CheckReport:
    """Our table of the variables that OpenAI SDKs and Claude Code read."""
    known = set(targets.of("clients")["variables"])
    return _parsed(
        ("our table of the clients' variables",),
        lambda: [f"no client reads {name}" for name in grammars.shell_exports(exported.text) if name not in known],
    )


def text(exported: Exported, _: Tools) -> CheckReport:
    """Text for people: every line has a value."""
    lines = [line for line in exported.text.splitlines() if not line.startswith("#")]
    empty = [line for line in lines if len(re.split(r"\s{2,}", line.strip())) < 2]
    return CheckReport(
        by=("nobody but us: it is text for people",), problems=tuple(f"no value: {line}" for line in empty)
    )


def by_schema(
    exported: Exported, name: str, by: str, load: Callable[[str], Any], also: Callable[[Any], list[str]] | None = None
) -> CheckReport:
    """What the shipped schema `name` finds wrong, and what `also` does; `load` reads the text or raises ValueError."""

    def found() -> list[str]:
        document = load(exported.text)
        return [*json_schema.problems(document, json_schema.schema(name)), *(also(document) if also else ())]

    return _parsed((by,), found)


def _command(exported: Exported, name: str, by: str, *, skip: int) -> CheckReport:
    def found() -> list[str]:
        options = options_of(grammars.shell_words(exported.text)[skip:])
        return [*json_schema.problems(options, json_schema.schema(name)), *_json_options(options)]

    return _parsed((by,), found)


def options_of(words: list[str]) -> dict[str, Any]:
    """Options of a command line by name; a value is what its YAML would be.

    Raises:
        ValueError: a word that is neither an option nor its value.
    """
    options: dict[str, Any] = {}
    rest = iter([*words, ""])
    word = next(rest)
    while word:
        if not word.startswith("--"):
            message = f"neither an option nor its value: {word}"
            raise ValueError(message)
        following = next(rest)
        if not following or following.startswith("--"):
            options[word[2:]], word = True, following
        else:
            options[word[2:]], word = _value(following), next(rest)
    return options


def _value(word: str) -> object:
    """A number where the word is one; other texts as they are."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _json_options(options: dict[str, Any]) -> list[str]:
    """Options whose text must be a JSON object."""
    found: list[str] = []
    for name in _JSON_OPTIONS:
        value = options.get(name)
        if isinstance(value, str):
            try:
                json.loads(value)
            except ValueError:
                found.append(f"{name} is no JSON: {value}")
    return found


def _lm_studio(document: dict[str, Any], frame: str, way: tuple[str, ...]) -> list[str]:
    table = json_schema.schema("lm-studio")
    problems = list(json_schema.problems(document, table[frame]))
    if problems:
        return problems
    config = document
    for part in way:
        config = config[part]
    for field in (*config["operation"]["fields"], *config["load"]["fields"]):
        rule = table["fields"].get(field["key"])
        if rule is None:
            problems.append(f"LM Studio has no field {field['key']}")
        else:
            problems += json_schema.problems(field["value"], rule)
    return problems


def _parsed(by: tuple[str, ...], judge: Callable[[], Any]) -> CheckReport:
    """What `judge` finds; a file that cannot be read is one problem."""
    try:
        return CheckReport(by=by, problems=tuple(judge()))
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
