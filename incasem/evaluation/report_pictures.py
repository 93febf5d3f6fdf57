"""The pictures of a report: views of a slice as RGB, curves, and the overview.

Colours are from the palette of Okabe and Ito (2008, https://jfly.uni-koeln.de/color/), chosen so that they
stay apart for people with any of the common colour blindnesses, and in grey by their lightness.
"""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.evaluation.object_pictures import RGB, paint_affinities, paint_objects

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]

TRUE_POSITIVE: Colour = (86, 180, 233)
FALSE_POSITIVE: Colour = (213, 94, 0)
FALSE_NEGATIVE: Colour = (240, 228, 66)
WRONG_CLASS: Colour = (204, 121, 167)
EXCLUDED: Colour = (150, 150, 150)

#: What the overlay's colours mean, in the order of the legend.
OVERLAY_LEGEND: dict[str, Colour] = {
    "found (true positive)": TRUE_POSITIVE,
    "too much (false positive)": FALSE_POSITIVE,
    "missed (false negative)": FALSE_NEGATIVE,
    "another class": WRONG_CLASS,
    "exclusion zone, not scored": EXCLUDED,
}

#: The same for boundaries, of which there is one class.
BOUNDARY_LEGEND = {name: colour for name, colour in OVERLAY_LEGEND.items() if colour != WRONG_CLASS}

#: Colours of classes 1, 2, … in the views of labels and prediction; they repeat after the last.
CLASS_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233), (240, 228, 66),
    (213, 94, 0),
)  # fmt: skip
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True)
class SlicePanel:
    """One slice of a volume, to be shown as raw, labels, prediction and overlay.

    Where objects are learnt, ``ids_YX`` and ``affinities_CYX`` are shown in the place of labels, prediction
    and probability, which are of boundaries then.

    Attributes:
        title: e.g. ``"validation, z = 63"``.
        raw_YX: grey values of any dtype; shown between their 0.5 and 99.5 percentile.
        labels_YX, prediction_YX: class ids (0 = background), shape of ``raw_YX``; None if there are none.
        excluded_YX: True where nothing is scored (exclusion zone, outside the mask).
        pixel_nm: length of a pixel along x, for the scale bar.
        probability_YX: of the foreground, 0 to 1, shape of ``raw_YX``.
        ids_YX: objects of the labels (0 = none), shape of ``raw_YX``.
        affinities_CYX: predicted ones to the nearest voxels along z, y and x, (3, y, x), uint8 or 0 to 1.
    """

    title: str
    raw_YX: NDArray[Any]
    labels_YX: NDArray[Any] | None = None
    prediction_YX: NDArray[Any] | None = None
    excluded_YX: NDArray[Any] | None = None
    pixel_nm: float | None = None
    probability_YX: NDArray[Any] | None = None
    ids_YX: NDArray[Any] | None = None
    affinities_CYX: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that are not slices of one shape (DataError)."""
        if self.raw_YX.ndim != 2 or 0 in self.raw_YX.shape:
            raise DataError(
                f"slice {self.title!r}: raw has shape {self.raw_YX.shape}; allowed: (y, x). Take one slice."
            )
        arrays = ("labels_YX", "prediction_YX", "excluded_YX", "probability_YX", "ids_YX", "affinities_CYX")
        for name in arrays:
            array = getattr(self, name)
            channels = (3,) if name == "affinities_CYX" else ()
            if array is not None and array.shape != channels + self.raw_YX.shape:
                raise DataError(
                    f"slice {self.title!r}: {name} has shape {array.shape}; allowed: that of raw, "
                    f"{channels + self.raw_YX.shape}. Cut all of them with the same ROI."
                )

    @property
    def shows_objects(self) -> bool:
        """Whether objects are learnt rather than classes."""
        return self.ids_YX is not None or self.affinities_CYX is not None


@dataclass(frozen=True)
class Diagram:
    """A picture that is drawn already.

    Attributes:
        title: what it shows.
        png: the file.
        caption: under the picture.
    """

    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True)
class Curve:
    """One diagram, over the iterations unless ``x_label`` says otherwise.

    Attributes:
        title: heading.
        lines: name → (x values, y values) of equal length; points that are not finite are left out.
        x_label, y_label: axis labels.
        x_limits, y_limits: fixed limits, e.g. (0, 1) for scores.
        logarithmic: whether the y axis is.
        noisy: whether a long line is drawn with its running mean.
        marks: name → points (x, y) to be starred.
    """

    title: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    x_label: str = "iteration"
    y_label: str = ""
    y_limits: tuple[float, float] | None = None
    logarithmic: bool = False
    x_limits: tuple[float, float] | None = None
    noisy: bool = True
    marks: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether no line has a finite point."""
        return not any(len(finite(*line)[0]) for line in self.lines.values())


def finite(x: Sequence[float], y: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points (x, y) of which both values are finite."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise DataError(
            f"a curve has {xs.shape} x and {ys.shape} y values; allowed: as many of both. Pass pairs."
        )
    keep = np.isfinite(xs) & np.isfinite(ys)
    return xs[keep], ys[keep]


def views(panel: SlicePanel) -> dict[str, RGB]:
    """Return the views of a slice that its arrays allow (name → RGB, uint8, y, x, 3), raw first."""
    raw = grey(panel.raw_YX)
    out = {"raw": raw} | (_object_views if panel.shows_objects else _class_views)(raw, panel)
    if panel.labels_YX is not None and panel.prediction_YX is not None:
        name = "boundaries, compared" if panel.shows_objects else "overlay"
        out[name] = paint_overlay(raw, panel.labels_YX, panel.prediction_YX, panel.excluded_YX)
    return out


def _class_views(raw: RGB, panel: SlicePanel) -> dict[str, RGB]:
    out = {}
    if panel.labels_YX is not None:
        out["labels"] = paint_classes(raw, panel.labels_YX)
    if panel.prediction_YX is not None:
        out["prediction"] = paint_classes(raw, panel.prediction_YX)
    if panel.probability_YX is not None:
        out["probability"] = paint_probability(panel.probability_YX)
    return out


def _object_views(raw: RGB, panel: SlicePanel) -> dict[str, RGB]:
    out = {}
    if panel.ids_YX is not None:
        out["objects of the labels"] = paint_objects(raw, panel.ids_YX)
    if panel.affinities_CYX is not None:
        out["affinities z, y, x as red, green, blue"] = paint_affinities(panel.affinities_CYX)
    if panel.labels_YX is None and panel.prediction_YX is not None:
        out["boundaries"] = paint_classes(raw, panel.prediction_YX)
    return out


def paint_probability(probability_YX: NDArray[Any]) -> RGB:
    """Return probabilities (0 to 1) from black over orange to white, as heat is shown."""
    p = np.clip(np.nan_to_num(probability_YX.astype(np.float32)), 0, 1)[..., None]
    stops = np.array([(0, 0, 0), (120, 40, 10), (230, 159, 0), (255, 255, 255)], np.float32)
    at = p * (len(stops) - 1)
    below = np.minimum(at.astype(np.intp), len(stops) - 2)
    colour = stops[below[..., 0]] * (1 - (at - below)) + stops[below[..., 0] + 1] * (at - below)
    return np.rint(colour).astype(np.uint8)


def grey(raw_YX: NDArray[Any]) -> RGB:
    """Return a slice as RGB, its 0.5 and 99.5 percentiles black and white; NaN is black."""
    values = np.nan_to_num(raw_YX.astype(np.float64), posinf=0, neginf=0)
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5)
    return np.repeat((np.clip(scaled, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def paint_classes(raw: RGB, classes_YX: NDArray[Any]) -> RGB:
    """Return ``raw`` with each class in its colour, its outline strong."""
    out = raw
    for number in np.unique(classes_YX[classes_YX > 0]):
        mask = classes_YX == number
        colour = CLASS_COLOURS[(int(number) - 1) % len(CLASS_COLOURS)]
        out = _tint(out, mask, colour, 0.4)
        out = _tint(out, mask & ~_eroded(mask), colour, 0.9)
    return out


def paint_overlay(
    raw: RGB, labels_YX: NDArray[Any], prediction_YX: NDArray[Any], excluded_YX: NDArray[Any] | None
) -> RGB:
    """Return ``raw`` with right and wrong pixels coloured; what is not scored is hatched and not coloured."""
    scored = np.ones(labels_YX.shape, dtype=bool) if excluded_YX is None else ~excluded_YX.astype(bool)
    truth, found = labels_YX > 0, prediction_YX > 0
    out = _tint(raw, scored & found & (labels_YX == prediction_YX), TRUE_POSITIVE, 0.45)
    out = _tint(out, scored & found & ~truth, FALSE_POSITIVE, 0.75)
    out = _tint(out, scored & truth & ~found, FALSE_NEGATIVE, 0.75)
    out = _tint(out, scored & truth & found & (labels_YX != prediction_YX), WRONG_CLASS, 0.75)
    y, x = np.ogrid[: labels_YX.shape[0], : labels_YX.shape[1]]
    hatch = (y + x) % 4 < 2
    return _tint(_tint(out, ~scored, EXCLUDED, 0.35), ~scored & hatch, EXCLUDED, 0.75)


def _tint(image: RGB, mask: NDArray[np.bool_], colour: Colour, weight: float) -> RGB:
    out = image.copy()
    out[mask] = np.rint(image[mask] * (1 - weight) + np.array(colour) * weight).astype(np.uint8)
    return out


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def encode_png(image: RGB) -> bytes:
    """Return an RGB image (uint8, y, x, 3) as a PNG file."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = image.reshape(height, -1)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def scale_bar_nm(width_pixels: int, pixel_nm: float) -> float:
    """Return a round length (1, 2 or 5 × 10ⁿ nm) of at most a quarter of the width."""
    most = width_pixels * pixel_nm / 4
    decade = 10.0 ** np.floor(np.log10(most))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= most))


def format_length(nm: float) -> str:
    """Return ``200 nm``, ``2 µm``."""
    return f"{nm / 1000:g} µm" if nm >= 1000 else f"{nm:g} nm"


def draw_curve(axes: Any, curve: Curve) -> None:
    """Draw a curve into matplotlib axes; long noisy lines pale, with their running mean on top."""
    shown = 0
    for number, (name, (x, y)) in enumerate(curve.lines.items()):
        xs, ys = finite(x, y)
        if not xs.size:
            continue
        shown += 1
        colour = _LINE_COLOURS[number % len(_LINE_COLOURS)]
        window = ys.size // 40 if curve.noisy else 0
        label = plain(name)
        if window < 3:
            marker = "o" if curve.noisy and len(ys) < 60 else None
            axes.plot(xs, ys, color=colour, label=label, linewidth=1.6, marker=marker, markersize=3.5)
            continue
        axes.plot(xs, ys, color=colour, alpha=0.25, linewidth=0.8)
        mean = np.convolve(ys, np.ones(window) / window, mode="valid")
        middle = window // 2
        axes.plot(xs[middle : middle + len(mean)], mean, color=colour, label=label, linewidth=1.8)
    for name, points in curve.marks.items():
        style = {"marker": "*", "linestyle": "none", "markersize": 11, "color": "white"}
        x, y = zip(*points, strict=True)
        # Not clipped: a perfect score lies on the frame.
        axes.plot(x, y, markeredgecolor="black", zorder=3, label=plain(name), clip_on=False, **style)
    axes.set_title(plain(curve.title), fontsize=11, loc="left")
    axes.set_xlabel(plain(curve.x_label))
    if curve.x_label == "iteration":
        axes.locator_params(axis="x", integer=True)
    axes.set_ylabel(plain(curve.y_label))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curve.logarithmic and any((finite(*line)[1] > 0).any() for line in curve.lines.values()):
        _scale_logarithmically(axes)
    if curve.x_limits:
        axes.set_xlim(*curve.x_limits)
    if curve.y_limits:
        axes.set_ylim(*curve.y_limits)
    if shown:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no points recorded", ha="center", va="center", transform=axes.transAxes)


def _scale_logarithmically(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def plain(text: str) -> str:
    """Return text that matplotlib takes literally (a dollar sign begins its formulas)."""
    return text.replace("$", r"\$")


def figure(width_inch: float, height_inch: float) -> "Figure":
    """Return an empty white figure that draws without a display and without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width_inch, height_inch), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def figure_png(made: "Figure", dots_per_inch: int) -> bytes:
    """Return a figure as a PNG file."""
    out = io.BytesIO()
    made.savefig(out, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return out.getvalue()


def curve_png(curve: Curve) -> bytes:
    """Return one curve as a PNG file."""
    made = figure(5.6, 3.3)
    draw_curve(made.add_subplot(), curve)
    return figure_png(made, 160)
