"""KV cache layouts of runtimes, read from `profiles/runtimes/*.yaml`."""

from functools import cache
from typing import Any, Final

from glmplan.errors import InputError
from glmplan.profiles.store import shipped, shipped_names
from glmplan.runtime_layout import CacheContent, RuntimeHistory, RuntimeLayout

_PACKAGE: Final = "runtimes"


@cache
def runtime_names() -> tuple[str, ...]:
    """Runtimes that `--runtime` knows."""
    return tuple(sorted(str(shipped(_PACKAGE, f"{name}.yaml")["runtime"]) for name in shipped_names(_PACKAGE, ".yaml")))


def runtime_history(name: str) -> RuntimeHistory:
    """All layouts of one runtime, oldest first.

    Raises:
        InputError: a runtime nobody described.
    """
    for file in shipped_names(_PACKAGE, ".yaml"):
        document = shipped(_PACKAGE, f"{file}.yaml")
        if document["runtime"] == name:
            return _history(document)
    known = ", ".join(runtime_names())
    message = f"no runtime named {name!r}"
    raise InputError(message, hint=f"--runtime is one of: {known}", facts={"known": list(runtime_names())})


def _history(document: Any) -> RuntimeHistory:  # noqa: ANN401 - YAML is what it is
    return RuntimeHistory(
        runtime=str(document["runtime"]),
        title=str(document["title"]),
        floor=str(document["floor"]),
        floor_date=str(document["floor_date"]),
        floor_source=str(document["floor_source"]),
        cache_types=tuple(document["cache_types"]),
        layouts=tuple(_layout(document, row) for row in document["layouts"]),
    )


def _layout(document: Any, row: Any) -> RuntimeLayout:  # noqa: ANN401 - YAML is what it is
    return RuntimeLayout(
        since=str(row["since"]),
        about=bool(row.get("about", False)),
        date=str(row["date"]),
        stores=CacheContent(row["stores"]),
        flash_attention=row["flash_attention"],
        is_llama_cpp=row.get("engine", document["engine"]) == "llama.cpp",
        masks_f32=bool(row.get("masks_f32", False)),
        batch_logits=bool(row.get("batch_logits", False)),
        converted_in_pool=bool(row.get("converted_in_pool", False)),
        pipeline_logits_stage=row.get("pipeline_logits_stage"),
        sources=tuple(row["sources"]),
    )
