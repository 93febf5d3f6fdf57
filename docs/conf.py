"""How Sphinx builds the site: `make docs`. Nothing is fetched, neither to build it nor to read it."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

project = "incasem"
author = "the incasem developers"
copyright = "the incasem developers; BSD-3-Clause"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generate", "README.md", "_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "incasem"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sphinx = False
html_copy_source = False
html_last_updated_fmt = None
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "friendly"

napoleon_use_ivar = True  # attributes in one list
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
default_role = "code"
add_module_names = False
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

_LITERAL = re.compile(r"``.+?``|`[^`]+`|:\w+:`[^`]+`", re.DOTALL)


def _as_restructured_text(text: str) -> str:
    """Escape what docstrings hold that only reStructuredText takes for markup."""
    parts, position = [], 0
    for literal in _LITERAL.finditer(text):
        parts += [_escaped(text[position : literal.start()]), literal[0]]
        position = literal.end()
    return "".join([*parts, _escaped(text[position:])])


def _escaped(text: str) -> str:
    return re.sub(r"[*|]|(?<=\w)_(?=\W|$)", lambda found: "\\" + found[0], text)


_PLAIN = ("attribute", "data", "property")  # whose text napoleon takes for `type: text` if it holds a colon
_kept: dict[str, list[str]] = {}


def _mend_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _as_restructured_text("\n".join(lines)).split("\n")
    if what in _PLAIN:
        _kept[name] = lines.copy()


def _restore_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _kept.pop(name, lines)


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx looks for sources, and hook the docstrings in."""
    generate.write_pages(HERE / "reference" / "generated")
    app.connect("autodoc-process-docstring", _mend_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", _restore_docstring, priority=900)  # after it
