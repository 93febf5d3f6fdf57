"""The report of a run: what was seen, what was found, how good it is, and what to run next.

Everything comes as plain arrays and dictionaries; the report knows nothing of training or prediction.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from incasem.durable import write_durably
from incasem.errors import DataError, explain
from incasem.evaluation.report_html import render_html
from incasem.evaluation.report_overview import overview_png
from incasem.evaluation.report_pictures import Curve, Diagram, SlicePanel

__all__ = ["Curve", "Diagram", "SlicePanel", "write_report"]

_log = logging.getLogger(__name__)


def write_report(
    directory: str | Path, *, title: str, summary: str = "", slices: Sequence[SlicePanel] = (),
    curves: Sequence[Curve] = (), scores: Mapping[str, Mapping[str, float]] | None = None,
    class_names: Sequence[str] = (), facts: Mapping[str, Mapping[str, object]] | None = None,
    commands: Sequence[tuple[str, str]] = (), diagrams: Sequence[Diagram] = (),
    rows: str = "", diagrams_title: str = "Blocks",
) -> Path:  # fmt: skip
    """Write ``report.html`` and ``report.png`` into a directory, which is made if missing.

    The page holds its pictures and its style: it can be mailed as it is. Both files are written under
    another name first, so that a reader sees the old report or the new one, never half of one.

    Args:
        directory: where to.
        title: heading.
        summary: a sentence under it.
        slices: shown as raw, labels, prediction and overlay.
        curves: over the iterations; one without points says so.
        scores: class → score → value; NaN is shown as "not defined".
        class_names: names of classes 1, 2, … for the legend.
        facts: heading → name → value: settings, paths, durations.
        commands: (what it does, command line), in the order to run them.
        diagrams: pictures of the run's blocks.
        rows: what the rows of the table of scores are.
        diagrams_title: heading of the diagrams.

    Returns:
        The path of ``report.html``.

    Raises:
        DataError: the values of a curve do not fit each other, or the directory cannot be written.
    """
    target = Path(directory)
    table = scores or {}
    picture = overview_png(title, slices, curves, table)
    page = render_html(
        title,
        summary,
        slices,
        curves,
        table,
        class_names,
        facts or {},
        commands,
        diagrams,
        rows=rows,
        diagrams_title=diagrams_title,
    )
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_durably(target / "report.png", picture)
        write_durably(target / "report.html", page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise DataError(
            explain(
                "report directory", target, "a directory that can be written", f"Give another one ({error})"
            )
        ) from error
    _log.info("wrote %s", target / "report.html")
    return target / "report.html"
