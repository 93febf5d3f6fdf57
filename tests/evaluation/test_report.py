"""The report holds what it was given, whole and escaped, whatever was given."""

import base64
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.evaluation import report as report_module
from incasem.evaluation import report_pictures as pictures
from incasem.evaluation.report import Curve, SlicePanel, write_report
from incasem.evaluation.report_text import format_score, format_value

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Reads a page: open tags, images, text; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.text, self.seen = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def panel(**changes):
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:30] = 1
    excluded = np.zeros((40, 60), bool)
    excluded[8:12, 8:32] = True
    values = {
        "title": "z = 3", "raw_YX": rng.integers(0, 255, (40, 60), dtype=np.uint8), "labels_YX": labels,
        "prediction_YX": np.roll(labels, 4, axis=1), "excluded_YX": excluded, "pixel_nm": 5.0,
    }  # fmt: skip
    return SlicePanel(**{**values, **changes})


def curve(**changes):
    return Curve(**{"title": "Loss", "lines": {"training": (range(5), [1.0, 0.5, 0.4, 0.3, 0.2])}, **changes})


def decode(png):
    from matplotlib.image import imread

    return np.rint(imread(BytesIO(png), format="png")[..., :3] * 255).astype(np.uint8)


def test_a_full_report(tmp_path):
    path = write_report(
        tmp_path / "new" / "report",
        title="A run",
        summary="It went well.",
        slices=[panel(), panel(title="z = 9")],
        curves=[curve(), curve(title="F1", y_limits=(0, 1))],
        scores={"mito": {"F1": 0.91234, "voxels": 123456}, "er": {"F1": float("nan"), "Jaccard": 0.5}},
        class_names=["mito", "er"],
        facts={"Settings": {"iterations": 500, "shape": (1, 2, 3)}},
        commands=[("Look at it", "incasem view cell.zarr")],
    )
    assert path == tmp_path / "new" / "report" / "report.html"
    page = Page(path.read_text("utf-8"))
    text = " ".join(page.text)
    for wanted in ("A run", "It went well.", "z = 3", "z = 9", "0.9123", "not defined", "500", "1, 2, 3",
                   "Look at it",
                   "incasem view cell.zarr", "exclusion zone", "false negative"):  # fmt: skip
        assert wanted in text
    assert len(page.images) == 2 * 4 + 2
    for image in page.images:
        assert image["alt"]
        assert image["src"].startswith("data:image/png;base64,")
        assert decode(base64.b64decode(image["src"].split(",", 1)[1])).min(initial=255) >= 0
    overview = decode((path.parent / "report.png").read_bytes())
    assert overview.shape[0] > 400
    assert overview.shape[1] > 800
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.png"]


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    text = write_report(tmp_path, title="t", slices=[panel()], curves=[curve()]).read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.seen} & {"script", "link", "iframe", "object"}
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text


def test_every_string_is_escaped(tmp_path):
    bad = "<script>alert('&\"')</script>$x^"
    path = write_report(
        tmp_path, title=bad, summary=bad, slices=[panel(title=bad)], class_names=[bad],
        curves=[curve(title=bad, lines={bad: ([1], [2])}, x_label=bad, y_label=bad), Curve(title=bad)],
        scores={bad: {bad: 1.0}}, facts={bad: {bad: bad}}, commands=[(bad, bad)],
    )  # fmt: skip
    page = Page(path.read_text())
    assert "script" not in {tag for tag, _ in page.seen}
    assert " ".join(page.text).count(bad) >= 10


@pytest.mark.parametrize("lines", [{}, {"a": ([], [])}, {"a": ([1, 2], [float("nan"), float("inf")])}])
def test_curves_without_points_say_so(tmp_path, lines):
    text = write_report(tmp_path, title="t", curves=[curve(lines=lines, logarithmic=True)]).read_text()
    assert "no points recorded" in text
    assert Page(text).images == []


def test_an_empty_report_is_a_page(tmp_path):
    page = Page(write_report(tmp_path, title="Nothing yet").read_text())
    assert "Nothing yet" in " ".join(page.text)
    assert decode((tmp_path / "report.png").read_bytes()).size


def test_no_nan_in_the_text(tmp_path):
    nan, inf = float("nan"), float("inf")
    raw = np.full((8, 8), np.nan)
    raw[0, 0] = 1
    path = write_report(
        tmp_path, title="t", slices=[panel(raw_YX=raw, labels_YX=None, prediction_YX=None, excluded_YX=None)],
        scores={"mito": {"F1": nan, "voi": inf, "jaccard": np.float32(nan)}},
        facts={"f": {"a": nan, "b": [nan, 1.0], "c": {"d": -inf}, "e": None, "g": np.array([nan])}},
        curves=[curve(lines={"a": ([1, 2, 3], [0.1, nan, 0.3])})],
    )  # fmt: skip
    text = " ".join(Page(path.read_text()).text)
    assert not re.search(r"\b(nan|inf|None)\b", text, re.IGNORECASE)
    assert text.count("not defined") == 5


def test_an_interrupted_write_leaves_the_old_report(tmp_path, monkeypatch):
    path = write_report(tmp_path, title="old")
    before = path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DataError, match=r"report directory is .*No space left"):
        write_report(tmp_path, title="new")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.png"]


def test_a_file_in_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="allowed: a directory that can be written"):
        write_report(tmp_path / "taken", title="t")


def test_overlay_colours_mean_what_the_legend_says():
    raw = np.zeros((1, 6, 3), np.uint8)
    truth = np.array([[0, 1, 0, 1, 1, 0]])
    found = np.array([[0, 1, 1, 0, 2, 1]])
    excluded = np.array([[False] * 5 + [True]])
    out = pictures.paint_overlay(raw, truth, found, excluded)[0].astype(int)

    def nearest(pixel):
        directions = {
            n: np.array(c) / np.linalg.norm(c) for n, c in pictures.OVERLAY_LEGEND.items()
        }  # raw is black: a tint is a shorter vector of the same direction
        return max(directions, key=lambda n: directions[n] @ pixel / np.linalg.norm(pixel)).split(" (")[0]

    assert (out[0] == 0).all()
    assert [nearest(p) for p in out[1:5]] == ["found", "too much", "missed", "another class"]
    assert len(set(out[5])) == 1, "what is not scored is grey"
    assert (out[5] > 0).all()


def test_overlay_colours_stay_apart_for_the_colour_blind():
    """Simulated deuteranopia and protanopia (Machado, Oliveira, Fernandes 2009), distances in CIE Lab."""
    from skimage.color import rgb2lab

    views = {
        "normal": np.eye(3),
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    }
    main = [pictures.TRUE_POSITIVE, pictures.FALSE_POSITIVE, pictures.FALSE_NEGATIVE]
    linear = (np.array(main) / 255) ** 2.2
    for name, matrix in views.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        lab = rgb2lab(seen[None])[0]
        distances = [np.linalg.norm(lab[i] - lab[j]) for i in range(3) for j in range(i)]
        assert min(distances) > 30, name


def test_png_is_lossless():
    image = np.random.default_rng(1).integers(0, 255, (7, 13, 3), dtype=np.uint8)
    assert (decode(pictures.encode_png(image)) == image).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_grey_of_any_dtype(dtype):
    image = pictures.grey(np.arange(64).reshape(8, 8).astype(dtype))
    assert image.dtype == np.uint8
    assert image.shape == (8, 8, 3)
    assert (pictures.grey(np.full((3, 3), 7, dtype)) == 127).all()


def drawn(curve):
    axes = pictures.figure(4, 3).add_subplot()
    pictures.draw_curve(axes, curve)
    return axes


def test_marks_are_stars_in_the_legend():
    axes = drawn(curve(marks={"best": [(2, 0.4), (3, 0.3)]}))
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[2, 0.4], [3, 0.3]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "best"]


def test_a_line_that_is_not_noisy_is_drawn_as_it_is():
    x = np.linspace(0, 1, 500)
    noisy, exact = (
        drawn(Curve("t", {"a": (x, x**2)}, noisy=noisy, x_limits=(0, 1))) for noisy in (True, False)
    )
    assert len(noisy.lines) == 2, "a running mean on top"
    (line,) = exact.lines
    assert (line.get_ydata() == x**2).all()
    assert exact.get_xlim() == (0, 1)


@pytest.mark.parametrize(
    ("width", "pixel", "expected"), [(400, 5.0, 500), (100, 5.0, 100), (64, 4.6, 50), (9, 1750, 2000)]
)
def test_scale_bar_is_a_round_length(width, pixel, expected):
    assert pictures.scale_bar_nm(width, pixel) == expected


@pytest.mark.parametrize("name", ["labels_YX", "prediction_YX", "excluded_YX"])
def test_slices_of_different_shape_are_refused(name):
    with pytest.raises(DataError, match=f"{name} has shape"):
        panel(**{name: np.zeros((3, 3), np.uint8)})


def test_a_stack_is_not_a_slice():
    with pytest.raises(DataError, match=r"allowed: \(y, x\)"):
        panel(raw_YX=np.zeros((2, 40, 60)))


def test_unequal_curves_are_refused(tmp_path):
    with pytest.raises(DataError, match="as many of both"):
        write_report(tmp_path, title="t", curves=[curve(lines={"a": ([1, 2], [1.0])})])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (12, "12"), (1_234_567, "1\u202f234\u202f567"), (0.1234567, "0.123457"), (1e-4, "0.0001"),
     ((1, 2), "1, 2"), ({"a": None}, "a: –"), ("x", "x"), (np.float32(0.5), "0.5"), (float("-inf"), "−∞")],
)  # fmt: skip
def test_values_as_text(value, text):
    assert format_value(value) == text


def test_scores_have_four_decimals():
    assert [format_score(v) for v in (0.5, 3, float("nan"), None)] == ["0.5000", "3", "not defined", "–"]


def test_matplotlib_is_not_loaded_until_a_report_is_written():
    code = f"import sys, {report_module.__name__}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
