"""How fragments are found: the settings of the three methods."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from incasem.errors import ConfigError, did_you_mean, explain

__all__ = ["FragmentSettings", "Method"]

Method = Literal["watershed", "seeded", "mutex"]

STEPS = 255
_READ_BY: dict[str, tuple[str, ...]] = {
    "watershed": ("low", "high"),
    "seeded": (
        "low",
        "boundary_threshold",
        "per_section",
        "seed_blur",
        "seed_distance",
        "context_voxels",
        "join_overlap",
    ),
    "mutex": ("mutex_bias", "long_range_bias", "long_range_stride", "context_voxels", "join_overlap"),
}


@dataclass(frozen=True)
class FragmentSettings:
    """How a map of affinities is over-segmented. Affinities are on the scale 0 … 1.

    Attributes:
        method: ``watershed``: of the graph of affinities (Zlateski & Seung 2015; that of waterz), exact for
            any blocks. ``seeded``: of the boundary map, from the points that are far from boundaries (as in
            Funke et al. 2018); the blocks can be seen in its result. ``mutex``: mutex watershed (Wolf et al.
            2018), for maps with long-range offsets; the blocks can be seen as well.
        low: ``watershed`` and ``seeded``: an edge at or below does not exist. A voxel without edges is
            background.
        high: ``watershed``: edges at or above always join.
        boundary_threshold: ``seeded``: a voxel with a weaker edge is boundary.
        per_section: each section alone, by its edges in y and x, for sections that are thick or badly
            aligned, and for maps without edges between them.
        seed_blur: ``seeded``: the distance from the boundary is smoothed by a Gaussian of this standard
            deviation, in units of the voxel's shortest side; 0 for none.
        seed_distance: ``seeded``: a seed is the highest point around within this distance, in units of the
            voxel's shortest side.
        mutex_bias: ``mutex``: nearest edges above attract, those below repel; each the more, the farther.
        long_range_bias: ``mutex``: the same for the other edges.
        long_range_stride: ``mutex``: use the other edges of every n-th voxel only; z, y, x.
        context_voxels: ``seeded`` and ``mutex``: how far a block looks beyond itself; one number or z, y, x.
        join_overlap: ``seeded`` and ``mutex``: pieces of two blocks are one fragment where, in the sections
            on both sides of the face between them, more than this part of the larger one is common to both.

    Raises:
        ConfigError: a value that is not allowed.
    """

    method: Method = "watershed"
    low: float = 0.0001
    high: float = 0.9999
    boundary_threshold: float = 0.5
    per_section: bool = False
    seed_blur: float = 1.0
    seed_distance: float = 5.0
    mutex_bias: float = 0.5
    long_range_bias: float = 0.5
    long_range_stride: tuple[int, int, int] = (1, 1, 1)
    context_voxels: int | tuple[int, int, int] = 32
    join_overlap: float = 0.5

    def __post_init__(self) -> None:
        """Check everything that a user can set."""
        methods = get_args(Method)
        if self.method not in methods:
            todo = f"Choose one.{did_you_mean(str(self.method), methods)}"
            raise ConfigError(explain("method", self.method, ", ".join(methods), todo))
        for name in ("low", "high", "boundary_threshold", "mutex_bias", "long_range_bias", "join_overlap"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        apart = self.high > self.low and self.high_step > self.low_step
        _require("high", self.high, apart, f"at least 1/255 above low ({self.low})")
        _require("join_overlap", self.join_overlap, self.join_overlap > 0, "above 0")
        for name in ("seed_blur", "seed_distance"):
            value = getattr(self, name)
            _require(name, value, math.isfinite(value) and value >= 0, "0 or more, in voxels")
        object.__setattr__(self, "long_range_stride", tuple(self.long_range_stride))
        _require(
            "long_range_stride",
            self.long_range_stride,
            len(self.long_range_stride) == 3 and min(self.long_range_stride) >= 1,
            "three whole numbers, 1 or more",
        )
        given = self.context_voxels
        context = tuple(given) if isinstance(given, Sequence) else (given,) * 3
        _require(
            "context_voxels", given, len(context) == 3 and min(context) >= 1, "1 or more, or three of it"
        )
        object.__setattr__(self, "context_voxels", context)

    @property
    def low_step(self) -> int:
        """The last of the 255 steps that is no edge."""
        return math.floor(self.low * STEPS + 1e-6)

    @property
    def high_step(self) -> int:
        """The first of the 255 steps that always joins."""
        return max(1, math.ceil(self.high * STEPS - 1e-6))

    @property
    def context(self) -> tuple[int, int, int]:
        """How far a block looks beyond itself; z, y, x. The watershed takes what it needs."""
        if self.method == "watershed":
            return (0, 0, 0)
        z, y, x = self.context_voxels  # type: ignore[misc]  # three of them since __post_init__
        return (0, y, x) if self.per_section else (z, y, x)

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, JSON-able: the method and the settings that it reads."""
        names = {field.name for field in fields(self)} & set(_READ_BY[self.method])
        return {"method": self.method} | {name: getattr(self, name) for name in sorted(names)}


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise ConfigError(explain(f"fragments: {name}", value, allowed, "Correct it"))
