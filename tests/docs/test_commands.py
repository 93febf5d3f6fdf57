"""Every command in the documentation runs as printed, on generated tissue, in a home of its own.

A page is one session: its blocks are typed one after the other. `sessions` says what a page begins with and
the few settings that only the test adds.
"""

import pytest

from incasem.cli.verbs import VERBS
from incasem.phantom import make_phantom
from tests.docs.blocks import pages, read_page
from tests.docs.sessions import BEGINS, SESSIONS, SHAPE, TIMEOUT_S, typed

# Pages of which other tests type the commands, with what these need.
ELSEWHERE = {"docs/omniboard.md": "a MongoDB server and Omniboard"}
PAGES = {page.name: page for page in pages() if page.name not in ELSEWHERE}
# Blocks that no test here can run, by page: a new one has to be counted, and its reason written above it.
NOT_RUN = {
    "README.md": 2,
    "docs/how-to/download.md": 1,
    "docs/how-to/install.md": 2,
    "docs/how-to/neurons-from-pytc.md": 1,
    "docs/how-to/prepare.md": 1,
    "docs/how-to/score.md": 1,
    "docs/how-to/segment.md": 3,
    "docs/how-to/train.md": 3,
    "docs/how-to/view.md": 1,
    "docs/tutorial.md": 2,
    "examples/organelles/README.md": 2,
}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(SHAPE, seed=4)


@pytest.mark.timeout(2 * TIMEOUT_S)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if page.slow else [])
        for name, page in PAGES.items()
        if page.run
    ],
)
def test_commands_of(name, phantom, tmp_path):
    page = PAGES[name]
    assert page.session in SESSIONS, (
        f"{name} has commands; say `<!-- session: … -->`, one of {list(SESSIONS)}"
    )
    shell = SESSIONS[page.session](tmp_path / "home", phantom)
    missing = sorted({block.needs for block in page.run if block.needs and block.needs not in VERBS})
    blocks = [block for block in page.run if block.needs not in missing]
    typed(shell, blocks, begin=shell.home / BEGINS.get(page.session, "."))
    if missing:
        pytest.skip(f"the rest of {name} ran, but there is no verb {', '.join(missing)}")


def test_what_is_not_run_is_counted():
    skipped = {name: len(page.blocks) - len(page.run) for name, page in PAGES.items()}
    assert {name: count for name, count in skipped.items() if count} == NOT_RUN


def test_blocks_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(
        "<!-- session: cell, slow -->\n<!-- needs: view -->\n```bash\nls\n```\n"
        "<!-- not run: needs a GPU -->\n```python\n1 / 0\n```\n```json\n{}\n```\n"
    )
    page = read_page(path)
    assert (page.session, page.slow) == ("cell", True)
    assert [(block.language, block.not_run, block.needs, block.line) for block in page.blocks] == [
        ("bash", None, "view", 3),
        ("python", "needs a GPU", None, 7),
    ]
    assert [block.code for block in page.run] == ["ls\n"]
