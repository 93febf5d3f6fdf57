"""The NGFF metadata of groups in either Zarr version: looking up an array's place, and registering arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from incasem.volumes import ngff
from incasem.volumes.files import directory_lock, is_url, join, read_json, write_json
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


Attributes = dict[str, Any]


def update_ngff(group: Path, changes: Callable[[Attributes, str | None], Attributes]) -> None:
    """Merge changes into the NGFF attributes of a group, atomically.

    Args:
        group: its directory; without `zarr.json` it is taken for Zarr v2.
        changes: gets the stored attributes, and the version that each image states (0.4) or None (0.5).
    """
    with directory_lock(group):
        node = read_json(str(group / "zarr.json"))
        if node is None:
            stored = read_json(str(group / ".zattrs")) or {}
            merged = stored | changes(stored, "0.4")
            if merged != stored:
                write_json(group / ".zattrs", merged)
            return
        attributes = node.get("attributes") or {}
        before = attributes.get("ome") or {}
        after = before | {"version": "0.5"} | changes(before, None)
        if after != before:
            node["attributes"] = attributes | {"ome": after}
            write_json(group / "zarr.json", node)


def register_array(container: Path, dataset: str, place: Place) -> None:
    """Put an array into the `multiscales` of the group above it, where viewers look for it."""
    if not dataset:
        return
    group, name = (container / dataset).parent, Path(dataset).name
    for labels in ngff.label_groups(container, dataset):
        if is_group(labels):
            update_ngff(labels, lambda stored, _: {} if "labels" in stored else {"labels": []})

    def changes(stored: Attributes, version: str | None) -> Attributes:
        images = ngff.with_array(stored.get("multiscales"), group, name, place, version)
        labelled = ngff.holds_labels(group, name) and "image-label" not in stored
        return {"multiscales": images} | (
            {"image-label": ngff.image_label(None, version or "0.5")} if labelled else {}
        )

    update_ngff(group, changes)


def is_group(directory: Path) -> bool:
    """Tell whether a directory is a Zarr group of either version."""
    if (directory / ".zgroup").exists():
        return True
    return (read_json(str(directory / "zarr.json")) or {}).get("node_type") == "group"


def describe_pyramid(
    group: Path, name: str, places: Mapping[str, Place], method: str, label_source: str | None
) -> None:
    """Write the metadata of a group that holds nothing but the levels of one image.

    Args:
        group: its directory.
        name: of the image.
        places: name of each level → its place.
        method: how voxels were merged.
        label_source: for labels, the path from the group to that of their image, else None.
    """

    def changes(stored: Attributes, version: str | None) -> Attributes:
        labels = {"image-label": ngff.image_label(label_source, version or "0.5")} if label_source else {}
        kept = {"image-label": stored["image-label"]} if labels and "image-label" in stored else {}
        return {"multiscales": [ngff.pyramid_image(name, places, method, version)]} | labels | kept

    update_ngff(group, changes)


def announce_pyramid(
    container: Path, dataset: str, places: Mapping[str, Place], method: str, *, is_label: bool
) -> None:
    """Tell the group above a pyramid that the image of this name has levels; may be repeated.

    Args:
        container: the store.
        dataset: the pyramid's group in it.
        places: name of each level → its place.
        method: how voxels were merged.
        is_label: whether a parent called ``labels`` lists it.
    """
    parent, name = (container / dataset).parent, Path(dataset).name
    below = {f"{name}/{level}": place for level, place in places.items()}

    def changes(stored: Attributes, version: str | None) -> Attributes:
        images = [image for image in stored.get("multiscales") or [] if image.get("name") != name]
        changed: Attributes = {"multiscales": [*images, ngff.pyramid_image(name, below, method, version)]}
        if is_label and parent.name == "labels":
            changed["labels"] = sorted({*(stored.get("labels") or []), name})
        return changed

    if is_group(parent):
        update_ngff(parent, changes)
