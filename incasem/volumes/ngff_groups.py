"""Looking for an array's place in the `multiscales` of the groups above it, in either Zarr version."""

from pathlib import PurePosixPath
from typing import Any

from incasem.volumes import ngff
from incasem.volumes.files import is_url, join, read_json
from incasem.volumes.store import Place

# Level arrays lie at most this deep below the group that lists them.
_DEPTH = 3


def group_multiscales(group: str) -> Any:
    """Return the `multiscales` stored with a group: NGFF 0.5 in `zarr.json`, else up to 0.4 in `.zattrs`."""
    node = read_json(join(group, "zarr.json"))
    if node is not None:
        attributes = node.get("attributes") or {}
        return (attributes.get("ome") or {}).get("multiscales", attributes.get("multiscales"))
    attributes = read_json(join(group, ".zattrs")) or {}
    return attributes.get("multiscales")


def place_in_groups(path: str, ndim: int) -> Place | None:
    """Return the place that the nearest group with an entry for the array at ``path`` tells, or None."""
    scheme, separator, rest = path.partition("://") if is_url(path) else ("", "", path)
    pure = PurePosixPath(rest)
    for depth, parent in enumerate(pure.parents):
        if depth == _DEPTH:
            break
        dataset = str(pure.relative_to(parent))
        place = ngff.place_in_multiscales(
            group_multiscales(f"{scheme}{separator}{parent}"), dataset, ndim, path
        )
        if place is not None:
            return place
    return None
