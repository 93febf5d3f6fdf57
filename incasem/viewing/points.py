"""Points and graphs: tables of places in the world, shown as points and lines."""

import os
from typing import Any

import numpy as np
import tensorstore as ts
from neuroglancer import (
    CoordinateSpace,
    LineAnnotation,
    LocalAnnotationLayer,
    PointAnnotation,
)
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.volumes import list_datasets, split_path

_MOST = 100_000
"""Points that a browser still draws well."""
_COLOR = "#ffd92f"
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3", "attributes.json": "n5"}
_ALLOWED = "a table of places, N × 3 (z, y, x) or N × 2 (y, x), in nm"


def point_layer(file: str, name: str) -> Any:
    """Return an annotation layer of the places in a table.

    Published: ``NAME`` holds the places, or ``NAME-locations`` with ids in ``NAME-ids``. ``NAME-edges``,
    pairs of ids, are drawn as lines if they are there.

    Args:
        file: Zarr, N5 or HDF5 container.
        name: of the table; places are nm, z, y, x.

    Raises:
        DataError: no such table, another shape, or too many points to draw.
    """
    name = name.strip("/")
    separate = f"{name}-locations" in list_datasets(file)
    places = read_table(file, f"{name}-locations" if separate else name)
    if places.ndim < 2 or places.shape[-1] not in (2, 3):
        raise DataError(
            explain(
                f"shape of {os.path.join(file, name)}",
                places.shape,
                _ALLOWED,
                "Name another dataset after -g.",
            )
        )
    if places.size > _MOST * places.shape[-1]:
        raise DataError(
            explain(
                f"number of points in {name}", places.size // places.shape[-1], f"at most {_MOST}",
                "Show fewer.",
            )
        )  # fmt: skip
    points = places.reshape(-1, places.shape[-1]).astype(float)
    if points.shape[1] == 2:
        points = np.insert(points, 0, 0.0, axis=1)
    ids = [str(i) for i in range(len(points))]
    if separate and f"{name}-ids" in list_datasets(file):
        ids = [str(int(i)) for i in read_table(file, f"{name}-ids").ravel()]
    annotations: list[Any] = [
        PointAnnotation(id=i, point=point) for i, point in zip(ids, points, strict=True)
    ]
    annotations += _edges(file, name, dict(zip(ids, points, strict=True)))
    return LocalAnnotationLayer(
        dimensions=CoordinateSpace(names=["z", "y", "x"], units="nm", scales=[1, 1, 1]),
        annotations=annotations,
        annotation_color=_COLOR,
    )


def _edges(file: str, name: str, points: dict[str, NDArray[Any]]) -> list[Any]:
    if f"{name}-edges" not in list_datasets(file):
        return []
    pairs = read_table(file, f"{name}-edges").reshape(-1, 2)
    return [
        LineAnnotation(id=f"{a}-{b}", point_a=points[str(a)], point_b=points[str(b)])
        for a, b in ((int(a), int(b)) for a, b in pairs)
        if str(a) in points and str(b) in points
    ]


def read_table(file: str, name: str) -> NDArray[Any]:
    """Return a whole array of any number of dimensions, which a `Volume` cannot be.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    datasets = list_datasets(file)
    if name not in datasets:
        shown = ", ".join(datasets[:20]) or "none"
        raise DataError(explain(f"a dataset of {file}", name, shown, "Choose one of these."))
    container, inside = split_path(file)
    if container.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        import h5py

        with h5py.File(container, "r") as opened:
            return np.asarray(opened["/".join(part for part in (inside, name) if part)])
    directory = os.path.abspath(os.path.join(file, name))
    driver = next(
        driver for mark, driver in _DRIVERS.items() if os.path.exists(os.path.join(directory, mark))
    )
    try:
        store = ts.open({"driver": driver, "kvstore": {"driver": "file", "path": directory}}).result()
        table = np.asarray(store.read().result())
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(f"{directory} cannot be read: {str(error)[:200]}. Restore it from a copy.") from error
    return table.T if driver == "n5" else table
