"""`report.html`: one file with everything in it, for the browser and for paper."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from incasem.evaluation.report_pictures import (
    BOUNDARY_LEGEND,
    CLASS_COLOURS,
    OVERLAY_LEGEND,
    Colour,
    Curve,
    Diagram,
    SlicePanel,
    curve_png,
    encode_png,
    format_length,
    scale_bar_nm,
    views,
)
from incasem.evaluation.report_text import format_score, format_value, score_columns

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #59626d; --paper: #ffffff; --card: #f4f6f8;
  --line: #d4dae1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --quiet: #a4adb8; --paper: #15181c;
  --card: #1f242a; --line: #3a424c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
.views { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; }
figure { margin: 0; }
figcaption { color: var(--quiet); font-size: .9rem; }
.views img { width: 100%; display: block; image-rendering: pixelated; outline: 1px solid var(--line); }
.image { position: relative; }
.bar { position: absolute; left: 3%; bottom: 3%; border-bottom: 4px solid #fff; color: #fff;
  font-size: .75rem; line-height: 1.4; text-shadow: 0 0 3px #000, 0 0 3px #000;
  filter: drop-shadow(0 0 1px #000); white-space: nowrap; }
.curves { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 36rem)); }
.curves img { width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; padding: 0; margin: .6rem 0; list-style: none;
  font-size: .9rem; }
.swatch { display: inline-block; width: 1rem; height: 1rem; margin-right: .4rem;
  border: 1px solid var(--quiet); vertical-align: -.15rem;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.scores td, .scores thead th:not(:first-child) { text-align: right; }
.facts th { font-weight: 500; color: var(--quiet); white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem;
  margin: .2rem 0 .8rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  :root { --ink: #000; --quiet: #444; --paper: #fff; --card: #fff; --line: #bbb; }
  .views { grid-template-columns: repeat(auto-fit, minmax(3rem, 1fr)); }
  .curves { grid-template-columns: 1fr 1fr; }
  figure, tr, pre, .slice { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def render_html(
    title: str, summary: str, slices: Sequence[SlicePanel], curves: Sequence[Curve],
    scores: Mapping[str, Mapping[str, float]], class_names: Sequence[str],
    facts: Mapping[str, Mapping[str, object]], commands: Sequence[tuple[str, str]],
    diagrams: Sequence[Diagram] = (), *, rows: str = "", diagrams_title: str = "Blocks",
) -> str:  # fmt: skip
    """Return the page as text; all strings escaped, all pictures inside, nothing loaded from elsewhere."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if summary:
        parts.append(f"<p>{escape(summary)}</p>")
    parts += (
        _scores(scores, rows)
        + _slices(slices, class_names)
        + _curves(curves)
        + _diagrams(diagrams, diagrams_title)
        + _commands(commands)
        + _facts(facts)
    )
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _scores(scores: Mapping[str, Mapping[str, float]], named: str) -> list[str]:
    if not scores:
        return []
    columns = score_columns(scores)
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    rows = [
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(format_score(row.get(c)))}</td>" for c in columns)
        + "</tr>"
        for name, row in scores.items()
    ]
    corner = f'<th scope="col">{escape(named)}</th>' if named else "<td></td>"
    return [
        "<h2>Scores</h2>",
        '<div class="scroll"><table class="scores"><thead><tr>'
        f"{corner}"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    ]


def _slices(slices: Sequence[SlicePanel], class_names: Sequence[str]) -> list[str]:
    if not slices:
        return []
    parts = ["<h2>Slices</h2>"]
    if class_names and any(_paints_classes(panel) for panel in slices):
        colours = {n: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, n in enumerate(class_names)}
        parts += ['<p class="quiet">Labels and prediction:</p>', _legend(colours)]
    parts += [f'<p class="quiet">{escape(line)}</p>' for line in _about_objects(slices)]
    compared = [p for p in slices if p.labels_YX is not None and p.prediction_YX is not None]
    if compared:
        objects = all(p.shows_objects for p in compared)
        heading = "Boundaries, prediction compared with labels" if objects else "Overlay"
        parts += [f'<p class="quiet">{heading}:</p>', _legend(BOUNDARY_LEGEND if objects else OVERLAY_LEGEND)]
    for panel in slices:
        bar = _scale_bar(panel)
        figures = [
            f'<figure><div class="image">{_image(encode_png(image), f"{panel.title}: {name}")}'
            f"{bar if name == 'raw' else ''}</div><figcaption>{escape(name)}</figcaption></figure>"
            for name, image in views(panel).items()
        ]
        parts.append(
            f'<section class="slice"><h3>{escape(panel.title)}</h3>'
            f'<div class="views">{"".join(figures)}</div></section>'
        )
    return parts


def _paints_classes(panel: SlicePanel) -> bool:
    return not panel.shows_objects or panel.labels_YX is None


def _about_objects(slices: Sequence[SlicePanel]) -> list[str]:
    """Return how to read the pictures of objects and affinities, where there are any."""
    lines = []
    if any(p.ids_YX is not None for p in slices):
        lines.append(
            "Objects: those of the labels, each in a colour of its own; dark grey where there is none (id 0) "
            "or nothing is annotated."
        )
    if any(p.affinities_CYX is not None for p in slices):
        lines.append(
            "Affinities: predicted, to the nearest voxel along z (red), y (green) and x (blue). White is "
            "inside of an object; a colour that is missing says along which axes a voxel is cut off."
        )
    return lines


def _scale_bar(panel: SlicePanel) -> str:
    if not panel.pixel_nm:
        return ""
    width = panel.raw_YX.shape[1]
    length_nm = scale_bar_nm(width, panel.pixel_nm)
    percent = 100 * length_nm / panel.pixel_nm / width
    return f'<span class="bar" style="width: {percent:.2f}%">{format_length(length_nm)}</span>'


def _legend(colours: Mapping[str, Colour]) -> str:
    items = []
    for name, (red, green, blue) in colours.items():
        fill = f"rgb({red}, {green}, {blue})"
        if "exclusion" in name:
            fill = f"repeating-linear-gradient(135deg, {fill} 0 3px, #777 3px 6px)"
        items.append(f'<li><span class="swatch" style="background: {fill}"></span>{escape(name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _curves(curves: Sequence[Curve]) -> list[str]:
    if not curves:
        return []
    figures = []
    for curve in curves:
        if curve.empty:
            figures.append(f"<p>{escape(curve.title)}: no points recorded.</p>")
        else:
            alt = f"{curve.title}: {', '.join(curve.lines)} over {curve.x_label}"
            figures.append(f"<figure>{_image(curve_png(curve), alt)}</figure>")
    return ["<h2>Curves</h2>", f'<div class="curves">{"".join(figures)}</div>']


def _diagrams(diagrams: Sequence[Diagram], title: str) -> list[str]:
    if not diagrams:
        return []
    figures = [
        f"<figure>{_image(one.png, one.title)}<figcaption>{escape(one.caption)}</figcaption></figure>"
        for one in diagrams
    ]
    return [f"<h2>{escape(title)}</h2>", f'<div class="curves">{"".join(figures)}</div>']


def _commands(commands: Sequence[tuple[str, str]]) -> list[str]:
    if not commands:
        return []
    items = [f"<p>{escape(what)}</p><pre><code>{escape(line)}</code></pre>" for what, line in commands]
    return ["<h2>What to run next</h2>", *items]


def _facts(facts: Mapping[str, Mapping[str, object]]) -> list[str]:
    parts = []
    for heading, rows in facts.items():
        if not rows:
            continue
        cells = [
            f'<tr><th scope="row">{escape(key)}</th><td>{escape(format_value(value))}</td></tr>'
            for key, value in rows.items()
        ]
        parts += [
            f"<h2>{escape(heading)}</h2>",
            f'<div class="scroll"><table class="facts"><tbody>{"".join(cells)}</tbody></table></div>',
        ]
    return parts


def _image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'
