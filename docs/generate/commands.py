"""A page for each verb, from its parser."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from incasem.cli.arguments import DEFAULT_WORKERS, Parser
from incasem.cli.verbs import VERBS, Verb

SCRIPTS = Path(__file__).parents[2] / "scripts"


class _Parsed(BaseException):
    """Carries a parser out of a verb; no `except Exception` on the way holds it up."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


# Verbs whose first word chooses among parsers.
KINDS = {"check": ("train", "predict", "volume")}


def parser_of(verb: Verb, *words: str) -> argparse.ArgumentParser:
    """Return the parser that a verb makes for these first words, without running the verb."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parsed(parser)

    function = getattr(importlib.import_module(verb.module), verb.function)
    with mock.patch.object(Parser, "parse_known_args", stop), mock.patch.object(Parser, "parse_args", stop):
        try:
            function(f"incasem {verb.name}", list(words))
        except _Parsed as found:
            return found.parser
    raise AssertionError(f"incasem {verb.name} parses its arguments with something else than its parser")


def scripts_of(verb: Verb) -> list[str]:
    """Return the published scripts (relative to scripts/) that are this verb."""
    call = f'run_script("{verb.name}")'
    return sorted(str(p.relative_to(SCRIPTS)) for p in SCRIPTS.glob("*/*.py") if call in p.read_text())


def command_pages() -> dict[str, str]:
    """Return file name and text of each verb's page, and of their list."""
    pages = {f"command-{name}.md": _page(verb) for name, verb in VERBS.items()}
    return pages | {"commands.md": _list()}


def _list() -> str:
    rows = [
        f"| [`incasem {name}`](command-{name}.md) | {verb.line} | "
        + "<br>".join(f"`{script}`" for script in scripts_of(verb))
        + " |"
        for name, verb in VERBS.items()
    ]
    pages = "\n".join(f"command-{name}" for name in VERBS)
    return "\n".join([
        "# Commands", "",
        "Every published script is also a verb of the one command `incasem`; both take the same options, "
        "which `-h` lists. They may also stand in a file of lines `option: value`, given by `--config`.", "",
        "| verb | what it does | script in `scripts/` |", "|---|---|---|", *rows, "",
        "Exit codes: 0 done; 2 a setting or an option, 3 data, 4 a checkpoint cannot be used as asked; 5 "
        "blocks failed; 6 the run store cannot be used; 130 interrupted. The message says the setting, its "
        "value, what is allowed and what to do.", "",
        "```{toctree}", ":hidden:", "", pages, "```", "",
    ])  # fmt: skip


def _page(verb: Verb) -> str:
    lines = [f"# incasem {verb.name}", "", *_body(parser_of(verb), level=2)]
    for kind in KINDS.get(verb.name, ()):
        lines += ["", f"## incasem {verb.name} {kind}", "", *_body(parser_of(verb, kind), level=3)]
    if scripts := scripts_of(verb):
        named = ", ".join(
            f"`python {Path(script).name}` in `scripts/{Path(script).parent}`" for script in scripts
        )
        lines += ["", f"The same as {named}."]
    return "\n".join(lines) + "\n"


def _body(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    usage = parser.format_usage().removeprefix("usage: ").strip()
    yield from [_text(parser.description or ""), "", "```text", usage, "```", ""]
    options = [
        a for a in parser._actions if not isinstance(a, (argparse._HelpAction, argparse._SubParsersAction))
    ]
    if options:
        yield from ["| option | meaning | default |", "|---|---|---|"]
        yield from (_row(parser, action) for action in options if action.help != argparse.SUPPRESS)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from ["", "#" * level + f" {parser.prog} {name}", "", *_body(sub, level + 1)]


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    flags = " ".join(f"`{flag}`" for flag in action.option_strings)
    value = _value(parser, action)
    meaning, default = _meaning(action)
    return f"| {(flags + value).strip()} | {meaning} | {default} |"


def _value(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return how an option's values are written, as the usage line has it."""
    if action.nargs == 0:
        return ""
    formatter = parser._get_formatter()
    default = formatter._get_default_metavar_for_optional(action) if action.option_strings else action.dest
    text = formatter._format_args(action, default)
    return f" `{text}`".replace("|", "\\|")


def _meaning(action: argparse.Action) -> tuple[str, str]:
    text = action.help or ""
    said = re.search(r"\s*\(default: (.*)\)\s*$", text)
    if said:
        return _text(text[: said.start()]), _text(said[1])
    if action.required:
        return _text(text), "required"
    if action.dest == "num_workers" and action.default == DEFAULT_WORKERS:
        return _text(text), "the processor's cores"  # not those of the machine that built the page
    return _text(text), _default(action.default)


def _default(value: object) -> str:
    if value is None or value is argparse.SUPPRESS:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"`{text}`".replace("|", "\\|") if text else ""


def _text(text: str) -> str:
    """Return plain text as Markdown: nothing in it is markup, except the backticks that it has itself."""
    text = " ".join(text.replace("%%", "%").split())
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]|#])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return "`".join(parts)
