"""Numbers, paths and settings as the text of a report; nothing comes out as ``nan``."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np

NOT_DEFINED = "not defined"


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return at least one row, all with the same names, as a table with a heading; lines end with \\n."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def format_value(value: object) -> str:
    """Return a setting or result as text: numbers short, lists joined, None and NaN as words."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return (
            f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
            if abs(int(value)) >= 10_000
            else str(int(value))
        )
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            return NOT_DEFINED
        return f"{number:.6g}" if math.isfinite(number) else ("∞" if number > 0 else "−∞")
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {format_value(v)}" for k, v in value.items())
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return ", ".join(format_value(v) for v in value)
    return str(value)


def format_score(value: object) -> str:
    """Return a score with four decimals, counts as integers, anything else as `format_value`."""
    if isinstance(value, Real) and not isinstance(value, Integral) and math.isfinite(float(value)):
        return f"{float(value):.4f}"
    return format_value(value)


def score_columns(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all scores of all classes, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in scores.values() for name in row))


def flat_settings(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings as ``a.b.c`` → value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
