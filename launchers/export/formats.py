"""Every format by its name; the module of a format is loaded when the format is asked for."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from glmplan.errors import InputError, NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.export.exported import OWNER_ONLY, Exported, ExportRequest, Use
from glmplan.noun import noun

if TYPE_CHECKING:
    from glmplan.launchers.export.checks.report import CheckReport, Tools


@noun
class Format:
    """One format: `writer` and `judge` are `module.function` here and under `checks`; `how`: what to do with the file.

    `target` is the block of `targets.yaml` whose `port` the runtime listens on unless told otherwise. `use` is what the
    file is for unless told otherwise. `names_program`: the file needs the path of llama-server. `takes_cluster`: a plan
    of several machines will do too.
    """

    name: str
    title: str
    writer: str
    judge: str
    target: str
    how: str
    use: Use = Use.GENERAL
    names_program: bool = False
    takes_cluster: bool = False

    @property
    def port(self) -> int:
        """The port this target listens on by default."""
        port: int = targets.of(self.target)["port"]
        return port


def _format(name: str, writer: str, judge: str, target: str, title: str, how: str) -> Format:
    return Format(
        name=name, title=title, writer=writer, judge=judge, target=target, how=how,
        use=Use.CODING if name in _CODING else Use.GENERAL, names_program=name in _SERVICES,
        takes_cluster=name in _CLUSTERS,
    )  # fmt: skip


_CODING: Final = {"claude-code", "opencode", "continue", "cline", "aider", "aider-settings", "aider-metadata"}
_CLUSTERS: Final = {"ray-serve", "ray-serve-llm", "kuberay", "production-stack", "skypilot", "llama-rpc"}
_SERVICES: Final = {"systemd", "launchd"}


# fmt: off
FORMATS: Final = {known.name: known for known in (
    # llama-server
    _format("script", "posix_script.script", "llama_server.script", "llama_server",
            "standalone launch script (POSIX sh)", "sh FILE"),
    _format("powershell", "powershell_script.script", "llama_server.powershell", "llama_server",
            "standalone launch script (PowerShell)", "powershell -ExecutionPolicy Bypass -File FILE"),
    _format("llama-server", "llama_server.command", "llama_server.command", "llama_server",
            "llama-server command line", "sh FILE"),
    _format("llama-server-env", "llama_server.environment", "llama_server.environment", "llama_server",
            "LLAMA_ARG_* variables", "set -a; . FILE; llama-server"),
    _format("llama-server-ini", "llama_server.preset", "router.preset", "llama_server",
            "preset of llama-server's router", "llama-server --models-preset FILE"),
    _format("systemd", "services.systemd", "services.systemd", "llama_server",
            "systemd unit", "/etc/systemd/system/glm-4.7-flash.service"),
    _format("launchd", "services.launchd", "services.launchd", "llama_server",
            "launchd agent", "~/Library/LaunchAgents/dev.glmplan.llama-server.plist"),
    _format("compose", "containers.compose", "containers.compose", "containers",
            "Docker Compose file", "docker compose -f FILE up -d"),
    _format("quadlet", "containers.quadlet", "services.quadlet", "containers",
            "Podman quadlet", "~/.config/containers/systemd/glm.container"),
    _format("llama-swap", "llama_swap.config", "configurations.llama_swap", "llama_swap",
            "llama-swap configuration", "llama-swap --config FILE"),
    # other runtimes
    _format("llama-cpp-python", "llama_cpp_python.config", "configurations.llama_cpp_python", "llama_cpp_python",
            "llama-cpp-python server configuration", "python -m llama_cpp.server --config_file FILE"),
    _format("modelfile", "ollama.modelfile", "ollama.modelfile", "ollama",
            "Ollama Modelfile", "ollama create glm-4.7-flash -f FILE"),
    _format("ollama-env", "ollama.environment", "ollama.environment", "ollama",
            "variables of `ollama serve`, for a shell", ". FILE && ollama serve"),
    _format("ollama-systemd", "ollama.systemd_drop_in", "ollama.systemd_drop_in", "ollama",
            "variables of Ollama's systemd service", "/etc/systemd/system/ollama.service.d/glmplan.conf"),
    _format("ollama-launchctl", "ollama.launchctl", "ollama.launchctl", "ollama",
            "variables of Ollama's app on a Mac", "sh FILE"),
    _format("ollama-windows", "ollama.windows", "ollama.windows", "ollama",
            "variables of Ollama on Windows", "powershell -ExecutionPolicy Bypass -File FILE"),
    _format("lm-studio", "lm_studio.model_yaml", "configurations.lm_studio_yaml", "lm_studio",
            "LM Studio model.yaml", "~/.lmstudio/hub/models/glmplan/glm-4.7-flash/model.yaml"),
    _format("lm-studio-defaults", "lm_studio.model_defaults", "configurations.lm_studio_defaults", "lm_studio",
            "LM Studio defaults for one model file", "below ~/.lmstudio/.internal/user-concrete-model-default-config/"),
    _format("lms-load", "lm_studio.load_command", "configurations.lms_commands", "lm_studio",
            "LM Studio `lms` commands", "sh FILE"),
    _format("mlx-lm", "mlx.command", "configurations.mlx_command", "mlx_lm",
            "mlx-lm command", "sh FILE"),
    _format("vllm", "gpu_servers.vllm_command", "configurations.vllm_command", "vllm",
            "vLLM command", "sh FILE"),
    _format("vllm-config", "gpu_servers.vllm_config", "configurations.vllm_config", "vllm",
            "vLLM configuration (YAML)", "vllm serve --config FILE"),
    _format("sglang", "gpu_servers.sglang_command", "configurations.sglang_command", "sglang",
            "SGLang command", "sh FILE"),
    _format("sglang-config", "gpu_servers.sglang_config", "configurations.sglang_config", "sglang",
            "SGLang configuration (YAML)", "python3 -m sglang.launch_server --config FILE"),
    # more than one machine
    _format("ray-serve", "ray_serve.replicas", "clusters.ray_serve", "ray",
            "Ray Serve: replicas of the plan's engine", "serve deploy FILE"),
    _format("ray-serve-llm", "ray_serve.llm", "clusters.ray_serve", "ray",
            "Ray Serve: vLLM on NVIDIA GPUs", "serve deploy FILE"),
    _format("kuberay", "kubernetes.kuberay", "clusters.kuberay", "ray",
            "KubeRay RayService (Kubernetes)", "kubectl apply -f FILE"),
    _format("production-stack", "kubernetes.production_stack", "clusters.production_stack", "production_stack",
            "Helm values of vLLM's production stack", "helm install glm vllm/vllm-stack -f FILE"),
    _format("skypilot", "skypilot.task", "clusters.skypilot", "skypilot",
            "SkyPilot task: rented GPUs", "sky serve up FILE --secret VLLM_API_KEY"),
    _format("llama-rpc", "llama_rpc.recipe", "clusters.llama_rpc", "llama_rpc",
            "llama.cpp RPC recipe: one file over several machines", "read it"),
    # clients
    _format("openai-env", "clients.openai", "configurations.variables", "clients",
            "variables of the OpenAI SDKs", ". FILE"),
    _format("claude-code", "agents.claude_code", "configurations.variables", "clients",
            "variables of Claude Code (/v1/messages)", ". FILE && claude"),
    _format("opencode", "clients.opencode", "editors.opencode", "clients",
            "opencode configuration", "opencode.json in the project"),
    _format("continue", "clients.continue_config", "editors.continue_config", "clients",
            "Continue configuration", "~/.continue/config.yaml"),
    _format("cline", "clients.cline", "configurations.text", "clients",
            "what to enter in Cline", "read it"),
    _format("aider", "agents.aider", "configurations.aider_config", "clients",
            "Aider configuration", ".aider.conf.yml in the project"),
    _format("aider-settings", "agents.aider_settings", "configurations.aider_settings", "clients",
            "Aider model settings", ".aider.model.settings.yml in the project"),
    _format("aider-metadata", "agents.aider_metadata", "configurations.aider_metadata", "clients",
            "Aider model metadata", ".aider.model.metadata.json in the project"),
)}
# fmt: on


# Names that people try first.
_ALSO: Final = {
    "sh": "script", "ps1": "powershell", "argv": "llama-server", "env": "llama-server-env", "ini": "llama-server-ini",
    "docker": "compose", "docker-compose": "compose", "podman": "quadlet", "ollama": "modelfile", "mlx": "mlx-lm",
    "lmstudio": "lm-studio", "openai": "openai-env", "claude": "claude-code",
}  # fmt: skip


def format_of(name: str) -> Format:
    """The format called `name`, or one that is also called so.

    Raises:
        InputError: there is none; names the nearest.
    """
    known = FORMATS.get(_ALSO.get(name.lower(), name.lower()))
    if known is None:
        import difflib

        near = difflib.get_close_matches(name.lower(), FORMATS, n=3, cutoff=0.5)
        message = f"no export format {name!r}"
        hint = f"did you mean {' or '.join(near)}?" if near else "glmplan export --list"
        raise InputError(message, hint=hint, facts={"formats": list(FORMATS)})
    return known


def export(name: str, request: ExportRequest) -> Exported:
    """The file of `request` in the format called `name`.

    Raises:
        InputError: no such format.
        NotExpressible: the target cannot run the plan, or its files cannot hold one of the values.
    """
    _require_text(request)
    known = format_of(name)
    if request.cluster is not None and not known.takes_cluster:
        able = [other.name for other in FORMATS.values() if other.takes_cluster]
        message = f"{known.name} is for one machine, and this is a plan of several"
        raise NotExpressible(message, hint=f"glmplan export {' | '.join(able)}", facts={"formats": [*able]})
    exported: Exported = _function(known.writer)(request)
    # What leads to a key is nobody else's business.
    return replace(exported, mode=exported.mode & OWNER_ONLY) if request.endpoint.api_key_file else exported


def check(name: str, exported: Exported, tools: "Tools") -> "CheckReport":
    """Have an export in the format called `name` judged by the strongest offline means there is."""
    report: CheckReport = _function(f"checks.{format_of(name).judge}")(exported, tools)
    return report


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    function: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), name)
    return function


def _require_text(request: ExportRequest) -> None:
    """No format can hold NUL characters or bytes that are no UTF-8."""
    endpoint, model = request.endpoint, request.plan.model
    values = (model.file, model.name, model.quantization, endpoint.host, endpoint.alias)
    for value in (*values, endpoint.api_key_file or "", request.server or ""):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            message = f"no file can hold the value {value!r}"
            raise NotExpressible(message, hint="rename the file: its name is not UTF-8", facts={"value": repr(value)})
