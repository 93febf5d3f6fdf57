"""What a check finds: all of it, and not only the first thing."""

import json
import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

from incasem.errors import IncasemError

Level = Literal["ok", "warning", "error"]
Result = TypeVar("Result")

SCHEMA = 1
"""Version of the JSON form; it grows when a key changes its meaning, not when one is added."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `warning`: it runs, but look at it; `error`: it would not run, or run for nothing.
        check: what was looked at, a stable name such as ``grey-values``.
        about: of what: an entry, a setting, a path.
        message: what was found.
        todo: what to do about it; empty where nothing is to be done or the message says it.
        figures: the numbers of the message, JSON-able.
    """

    level: Level
    check: str
    about: str
    message: str
    todo: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the finding with the keys of the JSON form."""
        return {
            "level": self.level,
            "check": self.check,
            "about": self.about,
            "message": self.message,
            "todo": self.todo or None,
            "figures": dict(self.figures),
        }


@dataclass
class Findings:
    """The findings of one check, in the order in which they were made.

    Attributes:
        what: `train`, `predict` or `volume`.
        subject: what was checked, for the heading.
    """

    what: str
    subject: str
    found: list[Finding] = field(default_factory=list)

    def ok(self, check: str, about: str, message: str, **figures: Any) -> None:
        """Add what is as it should be."""
        self.found.append(Finding("ok", check, about, message, figures=figures))

    def warning(self, check: str, about: str, message: str, todo: str = "", **figures: Any) -> None:
        """Add what runs, but should be looked at."""
        self.found.append(Finding("warning", check, about, message, todo, figures))

    def error(self, check: str, about: str, message: str, todo: str = "", **figures: Any) -> None:
        """Add what would stop the run, or make its result worthless."""
        self.found.append(Finding("error", check, about, message, todo, figures))

    def attempt(self, check: str, about: str, step: Callable[[], Result]) -> Result | None:
        """Take a step of the real run; what it raises is an error, what it warns of a warning.

        Args:
            check: name for the findings.
            about: of what.
            step: may raise an IncasemError or an OSError that names its file.

        Returns:
            What the step returns, None where it failed.
        """
        with self.collect_warnings(check, about):
            try:
                return step()
            except IncasemError as error:
                self.error(check, about, str(error))
            except OSError as error:
                if error.filename is None:
                    raise
                self.error(
                    check, about, f"{error.filename}: {error.strerror}", "Check the path and its permissions."
                )
        return None

    def passes(self, check: str, about: str, step: Callable[[], object]) -> bool:
        """Return whether a step of the real run ends without an error; see `attempt`."""
        before = self.count("error")
        self.attempt(check, about, step)
        return self.count("error") == before

    @contextmanager
    def collect_warnings(self, check: str, about: str) -> Iterator[None]:
        """Turn what incasem's loggers warn of into findings, in the place of lines on the terminal."""
        logger = logging.getLogger("incasem")
        handler = _Collector(self, check, about)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate

    def count(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level == level for finding in self.found)

    def without_repeats(self) -> Self:
        """Return the findings without what a later step has said again: several read the same settings."""
        self.found = list({(f.level, f.check, f.about, f.message): f for f in reversed(self.found)}.values())
        self.found.reverse()
        return self

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return not self.count("error")

    def as_json(self) -> str:
        """Return all findings as a JSON document."""
        document = {
            "schema": SCHEMA,
            "what": self.what,
            "subject": self.subject,
            "passed": self.passed,
            "counts": {level: self.count(level) for level in ("ok", "warning", "error")},
            "findings": [finding.as_json() for finding in self.found],
        }
        return json.dumps(document, indent=2, allow_nan=False)

    def as_text(self, width: int = 100) -> str:
        """Return all findings for a terminal of ``width`` columns."""
        lines = [self.subject]
        column = max((len(finding.check) for finding in self.found), default=0)
        for about in dict.fromkeys(finding.about for finding in self.found):
            lines += ["", about]
            for finding in self.found:
                if finding.about == about:
                    lines += _listed(finding, column, width)
        counts = [(self.count("error"), "error"), (self.count("warning"), "warning")]
        bad = ", ".join(f"{n} {name}{'s' if n != 1 else ''}" for n, name in counts if n)
        lines += ["", f"{bad or 'nothing to mend'}; {self.count('ok')} ok"]
        return "\n".join(lines)


def _listed(finding: Finding, column: int, width: int) -> Iterator[str]:
    """Yield a finding as lines: level, name in a column, what was found, and below it what to do."""
    head = f"  {finding.level:<8} {finding.check:<{column}}  "
    for text in [*finding.message.splitlines(), *finding.todo.splitlines()]:
        yield from textwrap.wrap(
            text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        head = " " * len(head)


class _Collector(logging.Handler):
    """Keeps each different warning once."""

    def __init__(self, findings: Findings, check: str, about: str) -> None:
        super().__init__(logging.WARNING)
        self._findings, self._check, self._about = findings, check, about

    def emit(self, record: logging.LogRecord) -> None:
        """Add the warning."""
        message = record.getMessage()
        if all(finding.message != message for finding in self._findings.found):
            self._findings.warning(self._check, self._about, message)
