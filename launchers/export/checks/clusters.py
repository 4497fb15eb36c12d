"""Configurations of clusters: by Ray's, SkyPilot's own classes where they are installed, otherwise by our key lists."""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from glmplan.launchers.cluster.application import IMPORT_PATH, Application
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.checks import grammars, json_schema, llama_server
from glmplan.launchers.export.checks.report import CheckReport, Tools
from glmplan.launchers.export.exported import Exported
from glmplan.launchers.export.ray_serve import LLM_IMPORT_PATH

_RAY_SCHEMA: Final = "ray.serve.schema"
_LLM_CONFIG: Final = "ray.llm._internal.serve.core.configs.llm_config"
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def ray_serve(exported: Exported, _: Tools) -> CheckReport:
    """Ray's ServeDeploySchema, our list of keys (Ray lets unknown ones pass), and what reads the arguments."""
    try:
        return _serve(yaml_text.load(exported.text))
    except ValueError as error:
        return CheckReport(by=("our reading of YAML",), problems=(str(error),))


def _serve(document: Any) -> CheckReport:  # noqa: ANN401 - YAML is what it is
    by, problems = ["our list of Ray Serve's keys"], [*_shaped("serve", document)]
    if problems:
        return CheckReport(by=tuple(by), problems=tuple(problems))
    schema = _library(_RAY_SCHEMA)
    if schema is not None:
        by.insert(0, f"Ray {_version('ray')}'s ServeDeploySchema")
        problems += _validated(schema.ServeDeploySchema, document)
    else:
        by.append("without Ray's own schema, which is not installed here (glmplan[cluster])")
    for application in document["applications"]:
        judge = {IMPORT_PATH: _replica_args, LLM_IMPORT_PATH: _llm_args}[application["import_path"]]
        said = judge(application["args"])
        by += said.by
        problems += said.problems
    return CheckReport(by=tuple(by), problems=tuple(problems))


def _replica_args(args: Any) -> CheckReport:  # noqa: ANN401 - YAML is what it is
    """What the nodes will read them with."""
    import json

    from glmplan.errors import InputError
    from glmplan.jsonio import loads

    try:
        loads(Application, json.dumps(args), origin="args")
    except InputError as error:
        return CheckReport(by=("glmplan's own reader of the arguments",), problems=(error.message,))
    return CheckReport(by=("glmplan's own reader of the arguments",))


def _llm_args(args: Any) -> CheckReport:  # noqa: ANN401 - YAML is what it is
    """Ray's LLMConfig, our list of its keys, and the options of vLLM's parser."""
    by = ["our list of LLMConfig's keys", "the options of vLLM 0.33.0's parser"]
    problems = [*_shaped("llm", args)]
    if problems:
        return CheckReport(by=tuple(by), problems=tuple(problems))
    module = _library(_LLM_CONFIG)
    if module is not None:
        by.insert(0, f"Ray {_version('ray')}'s LLMConfig")
    for config in args["llm_configs"]:
        if module is not None:
            problems += _validated(module.LLMConfig, config)
        problems += _engine(config["engine_kwargs"])
    return CheckReport(by=tuple(by), problems=tuple(problems))


def _engine(kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Unknown options of vLLM, and heads that cannot be shared out."""
    import json

    n_head = targets.of("weights")["n_head"]
    if n_head % kwargs["tensor_parallel_size"]:
        yield f"tensor_parallel_size {kwargs['tensor_parallel_size']} does not divide {n_head} attention heads"
    options = {
        name.replace("_", "-"): json.dumps(value) if isinstance(value, dict) else value
        for name, value in kwargs.items()
    }
    yield from json_schema.problems(options, _vllm_options())


def _vllm_options() -> dict[str, Any]:
    """The options of vLLM's parser, none of them required: some are said elsewhere."""
    known = json_schema.schema("vllm")
    return {name: rule for name, rule in known.items() if name != "required"}


def kuberay(exported: Exported, _: Tools) -> CheckReport:
    """The frame by our table of RayService, and what is inside as for Ray Serve."""
    by = ("our table of KubeRay's RayService",)
    try:
        document: Any = yaml_text.load(exported.text)
        problems = _shaped("rayservice", document)
        if problems:
            return CheckReport(by=by, problems=problems)
        inner = _serve(yaml_text.load(document["spec"]["serveConfigV2"]))
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
    names = [group["groupName"] for group in document["spec"]["rayClusterConfig"]["workerGroupSpecs"]]
    wrong = tuple(f"no name for Kubernetes: {name}" for name in names if not _LABEL.fullmatch(name))
    twice = tuple(f"two worker groups are called {name}" for name in set(names) if names.count(name) > 1)
    return CheckReport(by=(*by, *inner.by), problems=(*wrong, *twice, *inner.problems))


def production_stack(exported: Exported, _: Tools) -> CheckReport:
    """The chart's own schema of values, in the part we use, without unknown keys; vLLM's options for the rest."""
    by = ("the schema of vllm-stack's values", "the options of vLLM 0.33.0's parser")
    try:
        document: Any = yaml_text.load(exported.text)
        problems = [*_shaped("production-stack", document)]
        if not problems:
            from glmplan.launchers.export.checks.configurations import options_of

            for model in document["servingEngineSpec"]["modelSpec"]:
                problems += json_schema.problems(options_of(model["vllmConfig"]["extraArgs"]), _vllm_options())
    except ValueError as error:
        return CheckReport(by=by, problems=(str(error),))
    return CheckReport(by=by, problems=tuple(problems))


def skypilot(exported: Exported, _: Tools) -> CheckReport:
    """SkyPilot's own reader of tasks if it is installed, our list of keys, and vLLM's options."""
    by = ["our list of SkyPilot's keys", "the options of vLLM 0.33.0's parser"]
    try:
        document: Any = yaml_text.load(exported.text)
        problems = [*_shaped("skypilot", document)]
        if not problems:
            from glmplan.launchers.export.checks.configurations import options_of

            words = grammars.shell_words(document["run"])
            problems += json_schema.problems(options_of(words[3:]), json_schema.schema("vllm"))
    except ValueError as error:
        return CheckReport(by=tuple(by), problems=(str(error),))
    sky = _library("sky")
    if sky is None:
        by.append("without SkyPilot, which is not installed here")
        return CheckReport(by=tuple(by), problems=tuple(problems))
    by.insert(0, f"SkyPilot {_version('skypilot')}'s Task")
    try:
        # A secret without a value is asked for at the start; its reader wants one.
        secrets = dict.fromkeys(document.get("secrets", {}), "given-at-the-start")
        sky.Task.from_yaml_config({**document, "secrets": secrets})
    except Exception as error:
        problems.append(str(error).strip())
    return CheckReport(by=tuple(by), problems=tuple(problems))


def llama_rpc(exported: Exported, tools: Tools) -> CheckReport:
    """The command by llama-server, without the option that only builds with RPC know; the warning must be there."""
    try:
        argv = grammars.shell_words(exported.text)[1:]
        at = argv.index("--rpc")
    except ValueError as error:
        return CheckReport(by=("our reading of the shell's grammar",), problems=(str(error),))
    judged = llama_server.words([*argv[:at], *argv[at + 2 :]], tools)
    silent = () if targets.of("llama_rpc")["warning"] in exported.text else ("the warning is missing",)
    return CheckReport(by=judged.by, problems=(*judged.problems, *silent))


def _shaped(part: str, document: object) -> tuple[str, ...]:
    """What our own table of keys, in `clusters.json`, finds wrong."""
    return json_schema.problems(document, json_schema.schema("clusters")[part])


def _validated(model: Any, document: object) -> list[str]:  # noqa: ANN401 - pydantic's class
    try:
        model.model_validate(document)
    except ValueError as error:
        return [line.strip() for line in str(error).splitlines() if line.strip()][:5]
    return []


def _library(name: str) -> Any:  # noqa: ANN401 - an optional library
    """The module if it can be imported, otherwise None."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)
