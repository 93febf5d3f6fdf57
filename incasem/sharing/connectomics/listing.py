"""What became of each key: for the terminal, and for the file beside the settings."""

from dataclasses import dataclass, field
from typing import Any

from incasem.sharing.connectomics.keys import DEFAULTS, ON_BY_DEFAULT, reason
from incasem.sharing.connectomics.settings import Settings


@dataclass
class Listing:
    """Fills while keys are mapped.

    Attributes:
        settings: what was asked for.
        taken: key and what it became.
        approximate: key, and in what our setting differs.
        lost: key and why nothing corresponds to it.
    """

    settings: Settings
    taken: dict[str, str] = field(default_factory=dict)
    approximate: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def take(self, ours: str, *keys: str, but: str = "") -> None:
        """Note that keys became a setting of ours; ``but``: in what it differs."""
        for key in keys:
            self.taken[key] = ours
            if but:
                self.approximate[key] = f"{ours}, but {but}"

    def lose(self, key: str, why: str) -> None:
        """Note that nothing corresponds to a key."""
        self.lost[key] = why

    def finish(self) -> None:
        """Note the keys that were given and that nobody has mapped, and what is on by default there."""
        for key, value in self.settings.given.items():
            if key in self.settings.unknown:
                self.lost[key] = f"not a key of version 1.{self.settings.unknown[key]}"
            elif key not in self.taken and key not in self.lost:
                why = "it has no effect here" if key in DEFAULTS else reason(key, value)
                if value is False and key.endswith(".ENABLED"):
                    why = None
                if why is None:
                    self.taken[key] = "so here anyhow"
                else:
                    self.lost[key] = why
        augmented = self.settings["AUGMENTOR.ENABLED"]
        for group, why in ON_BY_DEFAULT.items():
            if augmented and self.settings.given.get(f"{group}.ENABLED", True):
                self.lost[group] = f"{why} (there it is on unless it is switched off)"

    def lines(self, *, with_taken: bool) -> list[str]:
        """Return the lines to show, what is not mapped last."""
        shown = {
            "taken over": {k: v for k, v in self.taken.items() if k not in self.approximate},
            "taken over in part": self.approximate,
            "not taken over": self.lost,
        }
        lines = []
        for title, keys in shown.items():
            if keys and (with_taken or title != "taken over"):
                lines += [f"{title}:", *(f"  {self._value(key)}: {text}" for key, text in keys.items())]
        return lines

    def _value(self, key: str) -> str:
        known: dict[str, Any] = {**DEFAULTS, **self.settings.given}
        return f"{key} = {known[key]}" if key in known else key
