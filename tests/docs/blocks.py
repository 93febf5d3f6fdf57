"""The commands in the documentation: which there are, which are run, and in what state they begin.

In a page's source, comments say it; nobody sees them on the page:

- ``<!-- session: NAME -->`` once a page: the home that its commands begin in (see `sessions`); with
  ``<!-- session: NAME, slow -->`` the page is run by `make test-all` only;
- ``<!-- not run: REASON -->`` above a block that a test cannot run;
- ``<!-- needs: VERB -->`` above a block that is run where there is this verb.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SESSION = re.compile(r"<!-- session: (\w+)(, slow)? -->")
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n|<!-- needs: (?P<verb>[\w-]+) -->\n)?"
    r"^(?P<fence>`{3,})(?P<language>bash|python)\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of commands."""

    page: str
    line: int
    language: str
    code: str
    not_run: str | None = None
    needs: str | None = None

    def as_bash(self) -> str:
        """Return the block as bash has it."""
        return (
            self.code
            if self.language == "bash"
            else f"python - <<'END_OF_PYTHON'\n{self.code}END_OF_PYTHON\n"
        )


@dataclass(frozen=True)
class Page:
    """A page with commands."""

    name: str
    session: str | None
    slow: bool
    blocks: list[Block]

    @property
    def run(self) -> list[Block]:
        """The blocks that are run."""
        return [block for block in self.blocks if block.not_run is None]


def read_page(path: Path) -> Page:
    """Return the commands of a page."""
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    session = _SESSION.search(text)
    blocks = [
        Block(
            name,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"],
            found["code"],
            found["reason"],
            found["verb"],
        )
        for found in _FENCE.finditer(text)
    ]
    return Page(name, session[1] if session else None, bool(session and session[2]), blocks)


def pages() -> list[Page]:
    """Return all pages with commands: the site's own, the README, and those of the examples."""
    sources = [p for p in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in p.parts]
    examples = sorted((ROOT / "examples").glob("*/README.md"))
    found = [read_page(path) for path in [ROOT / "README.md", *sources, *examples]]
    return [page for page in found if page.blocks]
