"""A fetch for people: how far, how fast, how long still, and where the file is."""

from glmplan.fetched import FetchPhase, FetchProgress, FetchReport
from glmplan.units import MIB, format_bytes, format_seconds


def progress_text(at: FetchProgress, width: int | None = None) -> str:
    """One line of progress, cut to `width` columns."""
    share = 100 * at.done_bytes // at.total_bytes if at.total_bytes else 100
    words = [f"{share} %, {format_bytes(at.done_bytes)} of {format_bytes(at.total_bytes)}"]
    if at.rate_bytes_per_s is not None:
        words.append(f"{at.rate_bytes_per_s / MIB:.1f} MiB/s")
    if at.left_s is not None:
        words.append(f"{format_seconds(at.left_s)} left")
    doing = "checking " if at.phase is FetchPhase.CHECKING else ""
    text = f"{', '.join(words)}  {doing}{at.file}"
    return text if width is None else text[: max(width - 1, 1)]


def report_lines(report: FetchReport) -> list[str]:
    """What was done, for standard error; the path itself is the answer and not among them."""
    size = format_bytes(report.total_bytes)
    if report.fetched_bytes:
        resumed = sum(file.resumed_from_bytes for file in report.files)
        before = f", {format_bytes(resumed)} were here from an earlier run" if resumed else ""
        lines = [f"fetched {format_bytes(report.fetched_bytes)}{before}; {size} verified"]
    else:
        where = f" in the {report.store} store" if report.store else ""
        lines = [f"already here{where}: {size}, used in place"]
    return [*lines, *report.notes]
