"""The whole export: scales, sizes of the segments, meshes."""

from dataclasses import dataclass
from pathlib import Path

from incasem.blockwise import JobReport
from incasem.blockwise.state import held
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import check_workers, dataset_path
from incasem.formatting.precomputed.draco import import_draco
from incasem.formatting.precomputed.layout import Layout
from incasem.formatting.precomputed.manifests import write_meshes
from incasem.formatting.precomputed.octree import make_octree
from incasem.formatting.precomputed.properties import write_properties
from incasem.formatting.precomputed.scales import segments, write_scales
from incasem.tasks.stored import require_finished
from incasem.volumes import Volume, check_spatial, open_volume

_LOCK = ".incasem.lock"


@dataclass(frozen=True)
class PrecomputedOptions:
    """A label volume and the folder it becomes.

    Attributes:
        file: the container.
        dataset: labels: three axes, integers, 0 for the background.
        output: the folder to make.
        resolution: voxel size instead of the stored one; nm, z, y, x.
        sharded: store many chunks in one file, which terabytes need; such a folder needs a server that hands
            out parts of files.
        meshes: make surfaces of the labels.
        mesh_scale: scale of the finest surfaces; 0 is that of the labels.
    """

    file: Path
    dataset: str
    output: Path
    resolution: tuple[float, float, float] | None = None
    sharded: bool = False
    meshes: bool = True
    mesh_scale: int = 0


def export_precomputed(
    options: PrecomputedOptions, *, num_workers: int, progress: bool = True
) -> list[tuple[str, JobReport]]:
    """Export a label volume for neuroglancer, continuing an interrupted run.

    Memory: a block a worker, and of the whole volume 16 bytes a label and about 64 bytes a part of a mesh (of
        which a label has one in each box of 128³ voxels that its surface crosses).

    Returns:
        folder below the output and report of each stage.

    Raises:
        ConfigError: a setting that cannot be, or the package for meshes is not installed.
        DataError: the labels are missing, unfinished or no labels, or the folder holds something else;
            another command works on it.
        FailedBlocksError: blocks that could not be done (negative labels), with the reason of each.
    """
    check_workers(num_workers)
    source = _open_labels(options)
    layout = Layout(options.output.expanduser().absolute(), source, options.sharded, options.meshes)
    if not 0 <= options.mesh_scale < len(layout.scales):
        raise ConfigError(
            explain(
                "mesh_scale",
                options.mesh_scale,
                f"0 to {len(layout.scales) - 1}",
                "Choose a scale that is made",
            )
        )
    if options.meshes:
        import_draco()
    layout.write_info()
    with held(layout.root / _LOCK):
        reports = write_scales(layout, num_workers, progress)
        found = segments(layout)
        write_properties(layout.root, found, source.voxel_size)
        if options.meshes:
            octree = make_octree(layout.scales[options.mesh_scale :])
            reports += write_meshes(layout, octree, len(found), num_workers, progress)
        (layout.root / _LOCK).unlink()
    return reports


def _open_labels(options: PrecomputedOptions) -> Volume:
    source = open_volume(dataset_path(options.file, options.dataset), voxel_size=options.resolution)
    check_spatial(source)
    require_finished(source)
    if source.dtype.kind not in "uib":
        raise DataError(
            explain(
                f"the dtype of {source.path}",
                source.dtype,
                "integers",
                "Labels are whole numbers: convert them",
            )
        )
    if not source.has_stated_place:
        raise DataError(
            explain(
                f"the voxel size of {source.path}",
                "not stated",
                "a size in nm",
                "Give it: --resolution Z Y X",
            )
        )
    return source
