"""What a browser makes of the pages that we write: the reports of each kind of run, and the documentation.

The pictures of whole pages stay in pytest's temporary folder, or where INCASEM_SCREENSHOTS says.
"""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.docs.test_site import site
from tests.end_to_end.spheres import directories, training, write_spheres
from tests.viewing.chromium import MISSING, PROGRAM, Chromium

__all__ = ["site"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
]

DESK, PHONE = 1280, 420
"""Widths of a window, pixels."""
HIGHEST = 6000
"""Of a picture, pixels."""
FOLDERS = {"training": "0001", "prediction": "predict_0001", "series": "predict_0002"}


def incasem(home, *words):
    done = subprocess.run(
        [sys.executable, "-m", "incasem", *words], cwd=home, env=os.environ | {"HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which each kind of run has left its report."""
    home = tmp_path_factory.mktemp("home")
    write_spheres(home)
    incasem(home, "train", "--name", "spheres", *training(home))
    data = ["prediction.data=validate.json", "prediction.torch.device=cpu", *directories(home)]
    incasem(home, "predict", "--run_id", "1", "with", *data, "prediction.log_metrics=True")
    incasem(home, "predict-multiple", "--run_id", "1", "--iterations", "2", "6", "with", *data)
    probabilities = "cell.zarr/volumes/predictions/train_0001/predict_0001/prob_maps/class_1"
    incasem(
        home, "evaluate", "-l", "cell.zarr/labels", "-p", probabilities, "-o", "runs/reports/evaluation",
        "--threshold_start", "0.1", "--threshold_stop", "0.9",
    )  # fmt: skip
    return home


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = Path(os.environ.get("INCASEM_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def look(browser, page, picture):
    """Open a page as on a desk and on a phone; it has to fit, and to be without errors. Keep its picture."""
    assert page.is_file(), f"{page} is missing"
    browser.console.clear()
    for width in (DESK, PHONE):
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        browser.open(page.as_uri())
        wait_for(browser, f"location.href === {page.as_uri()!r} && document.readyState === 'complete'")
        root = "document.documentElement"
        beyond = browser.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
        assert beyond <= 0, f"{page.name} is {beyond} pixels wider than a window of {width}"
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.alt || i.src)"
        assert browser.evaluate(broken) == []
        if width == DESK:
            height = min(int(browser.evaluate(f"{root}.scrollHeight")), HIGHEST)
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            seen = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            picture.write_bytes(base64.b64decode(seen["data"]))
    errors = [entry for entry in browser.console if entry.get("type", "error") == "error"]
    assert not errors, errors


def wait_for(browser, condition, patience_s=60):
    end = time.monotonic() + patience_s
    while not browser.evaluate(condition):
        assert time.monotonic() < end, f"waited in vain for {condition}"
        time.sleep(0.1)


@pytest.mark.parametrize("kind", [*FOLDERS, "evaluation"])
def test_the_report_of_each_kind_of_run(chromium, home, pictures, kind):
    page = home / "runs/reports" / FOLDERS.get(kind, kind) / "report.html"
    look(chromium, page, pictures / f"report_{kind}.png")
    headings = chromium.evaluate("[...document.querySelectorAll('h2')].map(h => h.textContent)")
    pictured = {"training": "Curves", "prediction": "Blocks", "series": "Blocks", "evaluation": "Curves"}
    assert pictured[kind] in headings
    assert chromium.evaluate("document.images.length") > 1


@pytest.mark.parametrize(
    "page",
    ["index", "tutorial", "how-to/view", "reference/generated/settings-training",
     "reference/generated/command-convert", "reference/api/volumes"],
)  # fmt: skip
def test_the_documentation(chromium, site, pictures, page):
    look(chromium, site / f"{page}.html", pictures / f"docs_{page.replace('/', '_')}.png")
