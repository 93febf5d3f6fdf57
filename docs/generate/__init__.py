"""Pages of the reference that are made from the code: commands and settings."""

import shutil
from pathlib import Path

from generate.commands import command_pages
from generate.settings import settings_pages


def write_pages(folder: Path) -> None:
    """Write all generated pages (MyST Markdown) into ``folder``, and remove what is no longer made."""
    pages = command_pages() | settings_pages()
    if folder.exists():
        for old in folder.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name not in pages:
                old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:  # an unchanged page is not built again
            path.write_text(text)
