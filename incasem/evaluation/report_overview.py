"""`report.png`: the whole report in one picture, for a mail or a slide."""

from collections.abc import Mapping, Sequence
from typing import Any

from incasem.evaluation.report_pictures import (
    BOUNDARY_LEGEND,
    OVERLAY_LEGEND,
    Colour,
    Curve,
    SlicePanel,
    draw_curve,
    figure,
    figure_png,
    format_length,
    plain,
    scale_bar_nm,
    views,
)
from incasem.evaluation.report_text import format_score, score_columns

_MOST_SLICES = 4
_CELL_INCH = 3.3
_CURVE_INCH = 2.9
_TITLE_INCH = 0.5


def overview_png(
    title: str,
    slices: Sequence[SlicePanel],
    curves: Sequence[Curve],
    scores: Mapping[str, Mapping[str, float]],
) -> bytes:
    """Return a PNG: a row for each slice (the first four), a row of curves, and the score table."""
    from matplotlib.transforms import blended_transform_factory

    shown = list(slices)[:_MOST_SLICES]
    per_row = min(max(len(curves), 1), 3)
    curve_rows = -(-len(curves) // 3)
    table_inch = 0.45 + 0.28 * (len(scores) + 1) if scores else 0.0
    heights = [_CELL_INCH * _aspect(p) + 0.35 for p in shown]
    legend_inch = 0.4 if shown else 0.0
    heights += [legend_inch] * bool(shown) + [_CURVE_INCH] * curve_rows + [table_inch] * bool(scores)
    heights = [_TITLE_INCH, *heights]
    made = figure(4 * _CELL_INCH, sum(heights) + 0.2)
    rows = iter(made.add_gridspec(len(heights), 1, height_ratios=heights))
    heading = made.add_subplot(next(rows))
    heading.set_axis_off()
    # At the picture's edge: where the table's names make the axes begin farther right, the heading does not.
    left = blended_transform_factory(made.transFigure, heading.transAxes)
    heading.text(0.005, 0.5, plain(title), fontsize=15, weight="bold", va="center", transform=left)
    for panel in shown:
        _draw_slice(made, next(rows), panel)
    if shown:
        objects = all(panel.shows_objects for panel in shown)
        _draw_legend(made.add_subplot(next(rows)), BOUNDARY_LEGEND if objects else OVERLAY_LEGEND)
    for first in range(0, len(curves), 3):
        cells = next(rows).subgridspec(1, per_row)
        for column, curve in enumerate(curves[first : first + 3]):
            draw_curve(made.add_subplot(cells[0, column]), curve)
    if scores:
        _draw_table(made.add_subplot(next(rows)), scores)
    return figure_png(made, 110)


def _aspect(panel: SlicePanel) -> float:
    height, width = panel.raw_YX.shape
    return min(max(height / width, 0.25), 1.5)


def _draw_slice(made: Any, row: Any, panel: SlicePanel) -> None:
    shown = views(panel)
    cells = row.subgridspec(1, max(4, len(shown)))
    for number, (name, image) in enumerate(shown.items()):
        axes = made.add_subplot(cells[number])
        axes.imshow(image, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():  # affinities are white, as is the page
            side.set(color="lightgrey", linewidth=0.8)
        axes.set_title(plain(f"{panel.title}: {name}" if number == 0 else name), fontsize=10, loc="left")
        if number == 0 and panel.pixel_nm:
            height, width = panel.raw_YX.shape
            length_nm = scale_bar_nm(width, panel.pixel_nm)
            pixels = length_nm / panel.pixel_nm
            y, x = height * 0.95, width * 0.04
            axes.plot([x, x + pixels], [y, y], color="white", linewidth=5, solid_capstyle="butt")
            axes.plot([x, x + pixels], [y, y], color="black", linewidth=2.5, solid_capstyle="butt")
            axes.text(
                x, y - height * 0.03, format_length(length_nm), fontsize=8, va="bottom",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )  # fmt: skip


def _draw_legend(axes: Any, colours: Mapping[str, Colour]) -> None:
    from matplotlib.patches import Patch

    axes.set_axis_off()
    patches = [
        Patch(
            facecolor=(colour[0] / 255, colour[1] / 255, colour[2] / 255), edgecolor="black",
            linewidth=0.5, label=name, hatch="////" if "exclusion" in name else None,
        )
        for name, colour in colours.items()
    ]  # fmt: skip
    axes.legend(handles=patches, ncols=len(patches), loc="center", frameon=False, fontsize=9)


def _draw_table(axes: Any, scores: Mapping[str, Mapping[str, float]]) -> None:
    axes.set_axis_off()
    columns = score_columns(scores)
    text = [[format_score(row.get(c)) for c in columns] for row in scores.values()]
    if not columns:
        return
    table = axes.table(
        cellText=text, rowLabels=[plain(name) for name in scores], colLabels=[plain(c) for c in columns],
        loc="center", cellLoc="right",
    )  # fmt: skip
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(min(1.0, len(columns) / 6), 1.4)
