"""What can be told of a stored prediction by looking at it: whose it is, what it holds, what is missing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from incasem.errors import DataError
from incasem.volumes import Volume, exists, open_volume, split_path

Kind = Literal["probabilities", "labels"]

BORDER_ATTRIBUTE = "unwritten_border_voxels"
PUBLISHED_BORDER = 47
"""Voxels at each face of a published prediction that were never written: the network's context."""

_LEVEL = re.compile(r"s\d+")
_PUBLISHED_PLACE = re.compile(r"(^|/)predictions/train_\d+/predict_\d+/")


def kind_of(volume: Volume) -> Kind:
    """Tell probability maps from segmentations.

    Floats are probabilities; so are bytes, unless the dataset is called ``segmentation`` or lies in
    ``labels``.
    """
    if volume.dtype.kind == "f":
        return "probabilities"
    parts = split_path(volume.path)[1].split("/")
    named = "segmentation" in parts or "labels" in parts
    return "probabilities" if volume.dtype == "uint8" and not named else "labels"


def unwritten_border(volume: Volume) -> int:
    """Return how many voxels at each face of a prediction were never written.

    0 for ours, which predicts the whole region, except with ``prediction.tiling=published``; 47 for those
    that the published code made, known by their place and the missing mark of ours.
    """
    stated = volume.attributes.get(BORDER_ATTRIBUTE)
    if isinstance(stated, int):
        return stated
    identity = _mark(volume).get("identity")
    if isinstance(identity, Mapping):
        if identity.get("tiling") != "published":
            return 0
        sizes = (identity.get("input_size_voxels"), identity.get("output_size_voxels"))
        read, written = (int(size[0]) if isinstance(size, list) else 0 for size in sizes)
        return (read - written) // 2
    return PUBLISHED_BORDER if _PUBLISHED_PLACE.search(split_path(volume.path)[1]) else 0


def require_finished(volume: Volume) -> None:
    """Refuse what a job of ours has begun and not ended.

    Raises:
        DataError: it is not finished.
    """
    own = volume.attributes.get("incasem")
    begun = isinstance(own, Mapping) and "job" not in own
    folders = [Path(volume.path), Path(volume.path) / "s0", _main_beside(volume)]
    if begun or any((folder / ".incasem" / "marks").exists() for folder in folders):
        raise DataError(
            f"{volume.path} is not finished: the command that began it was interrupted or is still at work. "
            "Run that command again first."
        )


def _main_beside(volume: Volume) -> Path:
    """Return the array that holds the marks of the job that made this one, perhaps the path itself.

    A probability map's is the segmentation, that of descriptors the affinities.
    """
    path = Path(volume.path)
    named = path.parent if _LEVEL.fullmatch(path.name) else path
    if named.parent.name == "prob_maps":
        return named.parents[1] / "segmentation"
    return named.with_name("affinities") if named.name == "descriptors" else path


def _mark(volume: Volume) -> Mapping[str, Any]:
    path = _main_beside(volume)
    holder = open_volume(path) if path != Path(volume.path) and exists(path) else volume
    mark = holder.attributes.get("incasem")
    return mark if isinstance(mark, Mapping) else {}
