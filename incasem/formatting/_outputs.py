"""What all stages do with their inputs and outputs: open, create, refuse."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from incasem.blockwise import Job
from incasem.blockwise.state import work_lock
from incasem.errors import ConfigError, DataError, explain
from incasem.volumes import Volume, check_spatial, create_volume, exists, open_volume

_MARK = "incasem"
_OWN_CONTAINERS = (".zarr", ".n5")


def check_workers(num_workers: int) -> None:
    """Refuse fewer than one worker before anything is created.

    Raises:
        ConfigError: ``num_workers`` is below 1.
    """
    if num_workers < 1:
        raise ConfigError(explain("num_workers", num_workers, "1 or more", "Use the number of cores"))


def check_chunks(chunk_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a chunk shape (voxels) as three numbers.

    Raises:
        ConfigError: not three positive numbers.
    """
    if len(chunk_shape) != 3 or min(chunk_shape) < 1:
        raise ConfigError(
            explain("chunk_shape", tuple(chunk_shape), "three numbers above 0", "Use 128 128 128")
        )
    return (int(chunk_shape[0]), int(chunk_shape[1]), int(chunk_shape[2]))


def dataset_path(file: Path, dataset: str) -> str:
    """Return the one path of a dataset in a file, ``~`` expanded."""
    name = dataset.strip("/")
    return f"{file.expanduser()}/{name}" if name else str(file.expanduser())


def open_grey(path: str) -> Volume:
    """Open a volume of three axes.

    Raises:
        DataError: missing, or with a channel axis.
    """
    volume = open_volume(path)
    check_spatial(volume)
    return volume


def create_output(
    path: str,
    *,
    job: str,
    shape: Sequence[int],
    dtype: np.dtype,
    voxel_size: Sequence[float],
    offset_nm: Sequence[float],
    chunk_shape: Sequence[int],
    channels: int | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Volume:
    """Create the volume that a job fills, or open the one that an earlier run of it began.

    Args:
        path: container and dataset.
        job: name of the job, noted in the attributes until the job's finished-mark takes its place.
        shape: voxels.
        dtype: of the output.
        voxel_size: nm.
        offset_nm: nm.
        chunk_shape: voxels.
        channels: of an array c, z, y, x; a chunk holds all of them. None: z, y, x.
        attributes: of the output besides.

    Raises:
        DataError: the dataset exists with another shape, type or place, or was not made by incasem.
    """
    chunks = check_chunks(chunk_shape)
    if not any(part.endswith(_OWN_CONTAINERS) for part in Path(path).parts):
        raise DataError(
            explain("the output", path, "a dataset in a container NAME.zarr or NAME.n5", "Rename it")
        )
    if exists(path) and _MARK not in open_volume(path).attributes:
        raise DataError(
            f"the output {path} exists and was not made by incasem; allowed: a new name, or one that an "
            "earlier run of this command began. Choose another output dataset, or delete this one."
        )
    first = () if channels is None else (channels,)
    return create_volume(
        path,
        shape=(*first, *shape),
        dtype=dtype,
        voxel_size=tuple(voxel_size),
        offset_nm=tuple(offset_nm),
        chunk_shape=(*first, *chunks),
        existing="resume",
        attributes={**(attributes or {}), _MARK: {"begun_by": job}},
    )


def create_like(
    path: str, source: Volume, *, job: str, dtype: np.dtype, chunk_shape: Sequence[int]
) -> Volume:
    """Create an output of the size and place of ``source``; see `create_output`."""
    if path == source.path:
        raise ConfigError(explain("the output dataset", path, "another one than the input", "Rename it"))
    return create_output(
        path,
        job=job,
        shape=source.shape,
        dtype=dtype,
        voxel_size=source.voxel_size,
        offset_nm=source.offset_nm,
        chunk_shape=chunk_shape,
    )


@contextmanager
def sole_command(job: Job) -> Iterator[None]:
    """Keep other commands away from a job's output while the passes before that job are under way.

    Raises:
        DataError: another command works on the output.
    """
    with work_lock(replace(job, state_dir=Path(job.state_dir) / "command")):
        yield


def state_dir(output: Volume) -> Path:
    """Where a job keeps marks and logs: inside its output, so that both are deleted together."""
    return Path(output.path) / ".incasem"
