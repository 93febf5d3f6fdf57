"""The documentation site: builds without a warning, needs no network, and its reference is complete."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from incasem.cli.verbs import VERBS
from incasem.config import PredictionConfig, TrainingConfig
from incasem.config.layers import schema_of

ROOT = Path(__file__).parents[2]
pytest.importorskip("furo", reason="the extra `docs` is not installed")
pytest.importorskip("myst_parser", reason="the extra `docs` is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(out / "doctrees"),
    ]
    done = subprocess.run([*command, "docs", str(out / "html")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


_LOADED_RELATIONS = ("stylesheet", "icon", "shortcut icon", "preload", "modulepreload", "preconnect")


class _Links(HTMLParser):
    """What a page loads by itself, what it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.linked.append(found["href"])
        elif tag == "link" and found.get("rel") in _LOADED_RELATIONS:
            self.loaded.append(found["href"])
        elif found.get("src"):
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def links(site):
    return {page: _Links(page.read_text()) for page in sorted(site.rglob("*.html"))}


def test_nothing_is_loaded_from_elsewhere(site, links):
    for page, found in links.items():
        for source in found.loaded:
            parts = urlsplit(source)
            assert parts.scheme == parts.netloc == "", f"{page.name} loads {source}"
            assert (page.parent / unquote(parts.path)).is_file(), f"{page.name} loads {source}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text()), sheet


def test_links_within_the_site_lead_somewhere(links):
    for page, found in links.items():
        for link in found.linked:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target in links or target.is_file(), f"{page.name} links to {link}"
            if parts.fragment and target in links:
                assert unquote(parts.fragment) in links[target].anchors, f"{page.name} links to {link}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_with_its_options(site, verb):
    page = (site / f"reference/generated/command-{verb}.html").read_text()
    assert f"incasem {verb}" in page
    assert page.count("<tr") > 2, "no table of options"


@pytest.mark.parametrize(
    ("page", "model"), [("settings-training", TrainingConfig), ("settings-prediction", PredictionConfig)]
)
def test_every_setting_is_explained(site, page, model):
    text = (site / f"reference/generated/{page}.html").read_text()
    rows = {
        re.sub(r"<[^>]+>", "", row[0]).strip(): [re.sub(r"<[^>]+>", "", cell).strip() for cell in row[1:]]
        for row in (re.findall(r"<td>(.*?)</td>", line, re.DOTALL) for line in text.split("<tr"))
        if len(row) == 4
    }
    for name in schema_of(model).settings:
        _, allowed, meaning = rows[name]
        assert allowed, f"{name}: what is allowed?"
        assert meaning, f"{name} has no meaning: write a string below it in its model"


def test_links_of_the_readme(tmp_path):
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not urlsplit(target).scheme:
            assert (ROOT / target).exists(), f"README.md links to {target}"
