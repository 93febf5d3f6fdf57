"""The types of settings.

Each validator takes what a YAML file, a JSON file or a command line can hold and says in plain words what is
allowed when the value does not fit. Two habits of the formats are met here: YAML 1.1 reads `3e-5` as a
string, and Python takes `True` for the integer 1.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A group of settings: immutable, and no key beyond the declared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, populate_by_name=True)


def not_allowed(allowed: str) -> PydanticCustomError:
    """Return the validation error whose message is just what is allowed."""
    return PydanticCustomError("setting", "{allowed}", {"allowed": allowed})


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[Any], int]:
    """Return a validator for whole numbers within bounds; `1e5` and `200000.0` count as whole."""
    least = "" if minimum is None else f" of at least {minimum}"
    allowed = f"a whole number{least}" + ("" if maximum is None else f" and at most {maximum}")

    def validate(value: Any) -> int:
        number = _as_number(value, allowed)
        if not number.is_integer():
            raise not_allowed(allowed)
        whole = value if isinstance(value, int) else int(number)
        if (minimum is not None and whole < minimum) or (maximum is not None and whole > maximum):
            raise not_allowed(allowed)
        return whole

    return validate


def number(
    *, above: float | None = None, minimum: float | None = None, maximum: float | None = None
) -> Callable[[Any], float]:
    """Return a validator for finite numbers with ``above < number``, ``minimum <= number <= maximum``."""
    bounds = [
        f"above {above:g}" if above is not None else "",
        f"of at least {minimum:g}" if minimum is not None else "",
        f"of at most {maximum:g}" if maximum is not None else "",
    ]
    allowed = " ".join(["a number", " and ".join(b for b in bounds if b)]).strip()

    def validate(value: Any) -> float:
        result = _as_number(value, allowed)
        if above is not None and not result > above:
            raise not_allowed(allowed)
        if (minimum is not None and result < minimum) or (maximum is not None and result > maximum):
            raise not_allowed(allowed)
        return result

    return validate


def _as_number(value: Any, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise not_allowed(allowed)
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise not_allowed(allowed) from None
    if not math.isfinite(result):
        raise not_allowed(allowed)
    return result


def triple(element: Callable[[Any], Any], what: str) -> Callable[[Any], tuple[Any, Any, Any]]:
    """Return a validator for three values z, y, x, each checked by ``element``."""
    allowed = f"three {what} z, y, x"

    def validate(value: Any) -> tuple[Any, Any, Any]:
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise not_allowed(allowed)
        try:
            z, y, x = (element(v) for v in value)
        except PydanticCustomError:
            raise not_allowed(allowed) from None
        return (z, y, x)

    return validate


def value_range(element: Callable[[Any], Any], what: str) -> Callable[[Any], tuple[Any, Any]]:
    """Return a validator for a range, lowest and highest value, each checked by ``element``."""
    allowed = f"two {what}, the lowest and the highest"

    def validate(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise not_allowed(allowed)
        try:
            low, high = (element(v) for v in value)
        except PydanticCustomError:
            raise not_allowed(allowed) from None
        if low > high:
            raise not_allowed(allowed)
        return (low, high)

    return validate


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise not_allowed("True or False")
    return value


def _device(value: Any) -> int | str:
    name = str(value).strip().lower()
    name = name.removeprefix("cuda:")
    if isinstance(value, int | str) and not isinstance(value, bool):
        if name.isdecimal():
            return int(name)
        if name in ("cpu", "cuda", "auto"):
            return name
    raise not_allowed("the number of a GPU (0, 1, …), 'cpu', 'cuda' or 'auto'")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise not_allowed("a name")
    return value


def _path_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | os.PathLike):
        raise not_allowed("one path")
    return os.fspath(value)


def _absolute_path(value: Any) -> Path:
    text = _path_text(value)
    if text is None:
        raise not_allowed("a path")
    return Path(os.path.abspath(Path(text).expanduser()))


def _absolute_path_or_none(value: Any) -> Path | None:
    return None if _path_text(value) is None else _absolute_path(value)


def _optional(validate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else validate(value)


_as_text = PlainSerializer(lambda path: None if path is None else str(path), when_used="json")

Integer = Annotated[int, BeforeValidator(integer())]
Positive = Annotated[int, BeforeValidator(integer(1))]
NotNegative = Annotated[int, BeforeValidator(integer(0))]
OptionalInteger = Annotated[int | None, BeforeValidator(_optional(integer(0)))]
# numpy takes seeds of 32 bits.
OptionalSeed = Annotated[int | None, BeforeValidator(_optional(integer(0, 2**32 - 1)))]
OptionalPositive = Annotated[int | None, BeforeValidator(_optional(integer(1)))]
PositiveNumber = Annotated[float, BeforeValidator(number(above=0))]
NotNegativeNumber = Annotated[float, BeforeValidator(number(minimum=0))]
OptionalPositiveNumber = Annotated[float | None, BeforeValidator(_optional(number(above=0)))]
Fraction = Annotated[float, BeforeValidator(number(minimum=0, maximum=1))]
OptionalFraction = Annotated[float | None, BeforeValidator(_optional(number(minimum=0, maximum=1)))]
Flag = Annotated[bool, BeforeValidator(_flag)]
Device = Annotated[int | str, BeforeValidator(_device)]
OptionalDevice = Annotated[int | str | None, BeforeValidator(_optional(_device))]
Text = Annotated[str, BeforeValidator(_text)]
PathText = Annotated[str | None, BeforeValidator(_path_text)]
Directory = Annotated[Path, BeforeValidator(_absolute_path), _as_text]
OptionalPath = Annotated[Path | None, BeforeValidator(_absolute_path_or_none), _as_text]

IntegerTriple = Annotated[tuple[int, int, int], BeforeValidator(triple(integer(), "whole numbers"))]
PositiveTriple = Annotated[
    tuple[int, int, int], BeforeValidator(triple(integer(1), "whole numbers of at least 1"))
]
OptionalPositiveTriple = Annotated[
    tuple[int, int, int] | None,
    BeforeValidator(_optional(triple(integer(1), "whole numbers of at least 1"))),
]
OptionalIntegerTriple = Annotated[
    tuple[int, int, int] | None, BeforeValidator(_optional(triple(integer(), "whole numbers")))
]
NotNegativeTriple = Annotated[
    tuple[float, float, float], BeforeValidator(triple(number(minimum=0), "numbers of at least 0"))
]
VoxelSizeTriple = Annotated[
    tuple[float, float, float], BeforeValidator(triple(number(above=0), "numbers above 0 (nm)"))
]
