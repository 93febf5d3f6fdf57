"""Export datasets into one HDF5 file: `vol0`, `vol1`, …, as PyTorch Connectomics writes results.

An HDF5 file has one writer. The room of all voxels is laid out before the first one is written, uncompressed,
so that a kill in the midst of a write harms no more than a block that is done again. The file grows beside
its place and is put there when it is complete.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.blockwise.job import identity_as_json
from incasem.blockwise.state import held
from incasem.durable import sync
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._folder import STATE, Folder
from incasem.formatting._outputs import dataset_path
from incasem.tasks.stored import require_finished
from incasem.volumes import Volume, open_volume
from incasem.volumes.metadata import place_attributes
from incasem.volumes.store import Place

JOB = "export-h5"
SUFFIXES = (".h5", ".hdf5", ".hdf")
_CHUNK = 64
_BLOCK_VOXELS = 128**3


@dataclass(frozen=True)
class Hdf5Options:
    """Datasets and the HDF5 file they become.

    Attributes:
        datasets: paths, container and dataset; of three axes, or four with channels first.
        output: the file to make.
        names: of the datasets in it; by default ``vol0``, ``vol1``, …
        keep_values: store floats as they are; else those from 0 to 1 become uint8, 0 to 255.
    """

    datasets: Sequence[tuple[Path, str]]
    output: Path
    names: Sequence[str] | None = None
    keep_values: bool = False


class GrowingFile(Folder):
    """The file that is being made, in a hidden folder beside its place, and its marks."""

    def __init__(self, final: Path) -> None:
        super().__init__(final.with_name(f".{final.name}{STATE}"))
        self.final = final

    @property
    def state(self) -> Path:
        """Where attributes lie: in the folder itself."""
        return self.path

    @property
    def lock(self) -> Path:
        """Held while somebody works on the file."""
        return self.path.with_suffix(".lock")

    @property
    def file(self) -> Path:
        """The growing file."""
        return self.path / "growing.h5"


class Part(Folder):
    """One dataset of the file, as the output of its stage."""

    @property
    def state(self) -> Path:
        """Where attributes lie: in the folder itself."""
        return self.path


def export_h5(options: Hdf5Options, *, progress: bool = True) -> Iterator[tuple[str, JobReport]]:
    """Export datasets into one HDF5 file, continuing an interrupted run.

    Yields:
        name in the file and report of each dataset.

    Raises:
        ConfigError: names that cannot be.
        DataError: a dataset is missing or unfinished; the file exists; another command works on it.
        FailedBlocksError: blocks that could not be done (floats beyond 0 to 1), with the reason of each.
    """
    names = _names(options)
    output = GrowingFile(options.output.expanduser().absolute())
    sources = [_open_source(file, dataset) for file, dataset in options.datasets]
    fingerprints = [source.fingerprint() for source in sources]
    wanted = identity_as_json({"sources": fingerprints, "names": names, "keep_values": options.keep_values})
    if output.final.exists():
        raise DataError(
            f"the output {output.final} exists; allowed: a new name. Choose another one, or delete it first."
        )
    with held(output.lock):
        if not output.file.exists() or output.attributes.get("wanted") != wanted:
            _lay_out(
                output, wanted, [(n, s, _dtype(s, options)) for n, s in zip(names, sources, strict=True)]
            )
        for name, source in zip(names, sources, strict=True):
            job, part = prepare_dataset(output, name, source)
            yield name, run_stage(job, part, num_workers=1, progress=progress)
        os.replace(output.file, output.final)
        sync(output.final.parent)
        _clear(output)
        output.lock.unlink()


def prepare_dataset(output: GrowingFile, name: str, source: Volume) -> tuple[Job, Part]:
    """Return the job that fills one dataset of the growing file."""
    part = Part(output.path / "parts" / name.replace("/", "_"))
    target = open_volume(f"{output.file}/{name}", writable=True)
    block = default_block_shape(target.write_shape, _BLOCK_VOXELS, volume_shape=target.shape[-3:])
    job = Job(
        name=f"{JOB} {name}",
        grid=Grid(source.roi_voxels, block),
        start_worker=partial(_start, source, target),
        identity={"source": source.fingerprint(), "dtype": target.dtype.name},
        state_dir=part.path / "job",
    )
    return job, part


def _names(options: Hdf5Options) -> list[str]:
    names = (
        [f"vol{k}" for k in range(len(options.datasets))] if options.names is None else list(options.names)
    )
    clean = all(name.strip("/") and ".." not in name for name in names)
    if len(names) != len(options.datasets) or len(set(names)) < len(names) or not clean:
        allowed = f"{len(options.datasets)} different names, one for each dataset"
        raise ConfigError(explain("out_datasets", " ".join(names), allowed, "Correct them"))
    if options.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(explain("the output", options.output, "a file NAME.h5", "Rename it"))
    return names


def _open_source(file: Path, dataset: str) -> Volume:
    source = open_volume(dataset_path(file, dataset))
    require_finished(source)
    return source


def _dtype(source: Volume, options: Hdf5Options) -> np.dtype[Any]:
    as_bytes = source.dtype.kind == "f" and not options.keep_values
    return np.dtype(np.uint8) if as_bytes or source.dtype.kind == "b" else source.dtype


def _lay_out(
    output: GrowingFile, wanted: dict[str, Any], datasets: Sequence[tuple[str, Volume, np.dtype[Any]]]
) -> None:
    """Make the file with the room of all voxels."""
    try:
        _clear(output)
        output.path.mkdir(parents=True)
        with h5py.File(output.file, "w") as file:
            for name, source, dtype in datasets:
                made = _dataset(file, name, source, dtype)
                made.attrs.update(place_attributes(Place(source.axes, source.voxel_size, source.offset_nm)))
                if "offsets" in source.attributes:  # of affinities, voxels
                    made.attrs["offsets"] = np.array(source.attributes["offsets"], np.int64)
    except OSError as error:
        raise DataError(
            f"{output.final} cannot be made: {error}. Check the free space and permissions."
        ) from error
    sync(output.file)
    output.set_attributes(wanted=wanted)


def _dataset(file: Any, name: str, source: Volume, dtype: np.dtype[Any]) -> Any:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(tuple(min(_CHUNK, n) for n in source.shape))
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(source.shape)
    h5py.h5d.create(
        file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, dcpl=creation, lcpl=links
    )
    return file[name]


def _clear(output: GrowingFile) -> None:
    shutil.rmtree(output.path, ignore_errors=True)


def _start(source: Volume, target: Volume) -> BlockFunction:
    return partial(_copy_block, source, target)


def _copy_block(source: Volume, target: Volume, block: Block) -> None:
    values = _as_stored(source.read_voxels(block.write_roi), target.dtype, source.path)
    target.write_voxels(block.write_roi, values)


def _as_stored(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if values.dtype.kind != "f" or dtype != np.uint8:
        return values.astype(dtype, copy=False)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # written so that a NaN fails, too
        raise DataError(
            explain(
                f"the values of {name}", f"{low} to {high}", "0 to 1 for floats, which become 0 to 255",
                "Keep them as they are: --lossless",
            )
        )  # fmt: skip
    return np.rint(values * 255).astype(np.uint8)
