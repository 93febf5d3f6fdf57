"""Where predictions lie on disk, and how their arrays are made.

```
<container>/volumes/predictions/train_%04d/predict_%04d/
    segmentation        class of each voxel
    prob_maps/class_1 … class_C-1, and class_0 where probabilities are float32
```

or, of affinities (c, z, y, x), whose attribute ``offsets`` says what the channels are:

```
    affinities
    descriptors         where they are learnt
```

The container is that of the entry, as published. Only Zarr takes several writers, so predictions of HDF5
files, N5 containers and image stacks go to a Zarr container of the same name beside them. Where several
entries of one data configuration share a container, each gets a folder of its nickname below
`predict_%04d`: published, the second was clipped into the arrays of the first.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from incasem.config import DataEntry, PredictionConfig
from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.tasks.task import Probability, StoredArray, Task
from incasem.volumes import Volume, create_volume, exists, split_path

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".n5", ".tif", ".tiff")
_CHUNK = 64
"""Edge of the outputs' chunks, voxels: small ones are quick to look at, and leave the planner more choice."""
_SHARDS = (256, 128)
"""Edges of the shards of Zarr v3, voxels: one file holds all chunks of a shard."""


def output_group(train_id: int, predict_id: int) -> str:
    """Return the published folder of a prediction inside its container."""
    return f"volumes/predictions/train_{train_id:04d}/predict_{predict_id:04d}"


def output_container(entry: DataEntry, directory: Path) -> Path:
    """Return the Zarr container that predictions of ``entry`` go to.

    Args:
        entry: a region of a volume.
        directory: `PredictionConfig.output_directory`.
    """
    container = entry.output_file(directory)
    if container.suffix == ".zarr":
        return container
    return container.with_name(container.name.removesuffix(_suffix_of(container)) + ".zarr")


def _suffix_of(container: Path) -> str:
    # A folder of images may have a dot in its name that begins no suffix.
    return container.suffix if container.suffix.lower() in _SUFFIXES else ""


def output_folders(entries: Sequence[DataEntry], config: PredictionConfig, group: str) -> list[Path]:
    """Return the folder of each entry's arrays; no two are the same.

    Args:
        entries: of one data configuration.
        config: gives the output directory.
        group: folder inside the container, see `output_group`.
    """
    containers = [output_container(entry, config.output_directory) for entry in entries]
    shared = Counter(containers)
    return [
        container / group / (entry.nickname if shared[container] > 1 else "")
        for container, entry in zip(containers, entries, strict=True)
    ]


@dataclass(frozen=True)
class OutputSet:
    """The arrays of one entry, not necessarily made yet.

    Attributes:
        folder: where they lie.
        roi_voxels: their place on the absolute voxel grid.
        voxel_size: nm; z, y, x.
        task: says which arrays there are.
        probability_type: uint8 (round(255 p)) or float32.
    """

    folder: Path
    roi_voxels: Roi
    voxel_size: tuple[float, float, float]
    task: Task
    probability_type: Probability

    @property
    def arrays(self) -> dict[str, StoredArray]:
        """The arrays by name; the main one, which holds the job's state, is made last."""
        return {array.name: array for array in self.task.stored(self.probability_type)}

    @property
    def names(self) -> list[str]:
        """Names of the arrays, the main one last."""
        return list(self.arrays)

    @property
    def main(self) -> str:
        """Name of the main array."""
        return self.names[-1]

    @property
    def chunk_shape(self) -> Coordinate:
        """What is compressed at a time (z, y, x, voxels)."""
        return Coordinate(min(_CHUNK, size) for size in self.roi_voxels.shape)

    @property
    def shard_shape(self) -> Coordinate | None:
        """What lies in one file of a Zarr v3 container (z, y, x, voxels); None in Zarr v2.

        An axis has at least two shards where it has two chunks, so that a small region is not one block.
        """
        container, _ = split_path(self.folder)
        if not (container / "zarr.json").exists():
            return None
        return Coordinate(
            next((edge for edge in _SHARDS if size >= 2 * edge), chunk)
            for size, chunk in zip(self.roi_voxels.shape, self.chunk_shape, strict=True)
        )

    @property
    def write_shape(self) -> Coordinate:
        """What one writer must own: a chunk or, in Zarr v3, a shard (z, y, x, voxels)."""
        return self.shard_shape or self.chunk_shape

    @property
    def bytes_per_voxel(self) -> int:
        """Of all arrays together, not compressed."""
        return sum(array.bytes_per_voxel for array in self.arrays.values())

    @property
    def state_dir(self) -> Path:
        """Where the job keeps its marks."""
        return self.folder / self.main / ".incasem"

    def check(self) -> None:
        """Check the arrays that exist; write nothing.

        Raises:
            DataError: one has another shape, type or place, or the set is incomplete.
        """
        existing = [name for name in self.names if exists(self.folder / name)]
        if self.main in existing and len(existing) < len(self.names):
            missing = ", ".join(name for name in self.names if name not in existing)
            raise DataError(
                f"the prediction {self.folder} lacks {missing}, which was there when it was written. "
                f"Delete {self.folder} and predict again."
            )
        for name in existing:
            self._open(self.arrays[name])

    def open(self) -> dict[str, Volume]:
        """Return all arrays by name, writable; missing ones are created.

        Raises:
            DataError: one exists with another shape, type or place.
        """
        return {name: self._open(array) for name, array in self.arrays.items()}

    def _open(self, array: StoredArray) -> Volume:
        channels = array.leading_shape
        shards = self.shard_shape
        offset_nm = tuple(b * v for b, v in zip(self.roi_voxels.begin, self.voxel_size, strict=True))
        return create_volume(
            self.folder / array.name,
            shape=(*channels, *self.roi_voxels.shape),
            dtype=array.dtype,
            voxel_size=self.voxel_size,
            offset_nm=offset_nm,
            chunk_shape=(*channels, *self.chunk_shape),
            shard_shape=None if shards is None else (*channels, *shards),
            existing="resume",
            attributes=array.attributes,
        )
