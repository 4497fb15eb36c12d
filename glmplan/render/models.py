"""The models of the catalog as tables."""

from glmplan.model_listing import ListedModel, ModelListing
from glmplan.units import format_bytes


def show_models(listing: ModelListing, *, with_files: bool) -> None:
    """Print `listing` to stdout; with the files and figures of each model if asked."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("--model", no_wrap=True)
    for column in ("parameters", "context", "cache/token"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("what works")
    for model in listing.models:
        works = "plan, estimate, run" if model.has_memory_model else "estimate --exact (no memory model)"
        parameters, cache = f"{model.n_parameters / 1e9:.1f} B", f"{model.f16_cache_bytes_per_token:,} B"
        table.add_row(model.name, parameters, f"{model.n_ctx_train:,}", cache, works)
    console.print(table)
    for model in listing.models if with_files else ():
        console.print(f"\n{model.title}: files, smallest first (--quant)")
        console.print(_files(model))
        for figure in model.benchmarks:
            told = "" if not figure.disagrees else f" (stated elsewhere: {figure.stated:g})"
            value = figure.public if figure.public is not None else figure.stated
            console.print(f"  {figure.benchmark}: {value:g}{told}; {figure.source}", markup=False)


def _files(model: ListedModel) -> object:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("--quant", no_wrap=True)
    for column in ("tensors", "bits"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("types", no_wrap=True)
    table.add_column("published as", overflow="fold")
    for file in model.files:
        where = "" if file.repo is None else f"{file.repo}/{file.file}"
        table.add_row(file.quant, format_bytes(file.tensor_bytes), f"{file.bits_per_weight:.2f}", file.known_by, where)
    return table
