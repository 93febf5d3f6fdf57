"""What a dataset is to the eye: image, segmentation, mask, probability map.

Decided from dtype and name, in the published layout's names (`volumes/labels/er`, `volumes/masks`,
`prob_maps/class_1`), and from a sample of at most `SAMPLE`³ voxels.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.viewing.pyramid import Pyramid
from incasem.volumes import split_path

Kind = Literal["image", "rgb", "channels", "segmentation", "mask", "probability", "heatmap"]
SHADERS = ("default", "rgb", "mask", "heatmap", "probmap")
"""The published words for `-s`."""

SAMPLE = 96
_FORCED: dict[str, Kind] = {
    "rgb": "rgb",
    "mask": "mask",
    "heatmap": "heatmap",
    "probmap": "probability",
}
_MASKS = re.compile(r"masks?|.*_masks?|.*_masks?_.*|mask_.*")
_PROBABILITIES = re.compile(r"prob(abilit(y|ies)|_?maps?|s)?|class_\d+|predictions?|affinit(y|ies)|affs")
_LABELS = re.compile(
    r"labels?|.*segmentations?|segments?|fragments|instances|gt|ground_?truth|.*_(labels|seg|gt)"
)
_FEW_CLASSES = 8
_LARGEST_CLASS = 32


def kind_of(path: str, dtype: np.dtype[Any], num_channels: int | None, shader: str | None = None) -> Kind:
    """Return how an array is shown.

    Args:
        path: whose last names inside the container are looked at, the last one first.
        dtype: of the array.
        num_channels: size of its channel axis, or None.
        shader: one of `SHADERS`; ``default`` and None decide by the rest.
    """
    if shader is not None and shader in _FORCED:
        return _FORCED[shader]
    if num_channels is not None and num_channels > 1:
        return "rgb" if num_channels <= 3 else "channels"
    if np.issubdtype(dtype, np.bool_):
        return "mask"
    container, dataset = split_path(path)
    names = [name.lower() for name in (dataset or container.stem).split("/")][::-1]
    if np.issubdtype(dtype, np.floating):
        return "probability" if any(_PROBABILITIES.fullmatch(name) for name in names[:3]) else "image"
    if dtype.itemsize >= 4:
        return "segmentation"
    for name in names[:3]:
        if _MASKS.fullmatch(name):
            return "mask"
        if _LABELS.fullmatch(name):
            return "segmentation"
        if _PROBABILITIES.fullmatch(name):
            return "probability"
    return "image"


def grey_range(pyramid: Pyramid) -> tuple[float, float]:
    """Return the values shown as black and white: of uint8 all, else what a sample's values cover."""
    if pyramid.dtype == np.uint8:
        return 0.0, 255.0
    sample = pyramid.sample(SAMPLE).astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size or finite.min() == finite.max():
        return _whole_range(pyramid.dtype)
    low, high = np.percentile(finite, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(finite.min()), float(finite.max()))


def probability_range(pyramid: Pyramid) -> tuple[float, float]:
    """Return the values that stand for 0 and 1.

    Small integers use their whole range; of large ones, which are classes rather than probabilities, the
    largest in a sample stands for 1.
    """
    if np.issubdtype(pyramid.dtype, np.integer) and pyramid.dtype.itemsize >= 4:
        return 0.0, float(max(1, pyramid.sample(SAMPLE).max()))
    if np.issubdtype(pyramid.dtype, np.integer):
        return 0.0, float(np.iinfo(pyramid.dtype).max)
    return 0.0, 1.0


def _whole_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if np.issubdtype(dtype, np.integer):
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return 0.0, 1.0


@dataclass(frozen=True)
class Classes:
    """The ids of a semantic segmentation; empty: ids are instances, or none were met."""

    ids: tuple[int, ...]


def classes_in(pyramid: Pyramid) -> Classes:
    """Return the class ids in a sample where they look like classes: few and small, or the one value 255."""
    ids: NDArray[Any] = np.unique(pyramid.sample(SAMPLE))
    found = tuple(int(i) for i in ids[: _FEW_CLASSES + 2] if i > 0)
    few = len(found) <= _FEW_CLASSES and all(i <= _LARGEST_CLASS or i == 255 for i in found)
    return Classes(found if few else ())
