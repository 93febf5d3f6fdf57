"""Organelle labels from COSEM's annotations, which tell the parts of an organelle apart.

Two forms are understood: one array of class ids, as in the N5 crops of Heinrich et al., Nature 599 (2021),
and a group with an array for each part (``er_mem``, ``er_lum``, …), as on OpenOrganelle. The parts of an
organelle become one: 1 inside, 0 outside, uint32.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, did_you_mean, explain
from incasem.formatting._outputs import check_chunks, check_workers, create_output, dataset_path, state_dir
from incasem.formatting.n5 import Source, open_source
from incasem.geometry import format_roi
from incasem.volumes import Volume, exists, list_datasets

JOB = "cosem labels"

#: Class ids and names of the parts of each organelle. COSEM counts the nuclear envelope to the ER.
ORGANELLES: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "ecs": ((1,), ("ecs",)),
    "pm": ((2,), ("pm",)),
    "mito": ((3, 4, 5), ("mito", "mito_mem", "mito_lum", "mito_ribo")),
    "golgi": ((6, 7), ("golgi", "golgi_mem", "golgi_lum")),
    "ves": ((8, 9), ("ves", "ves_mem", "ves_lum")),
    "endo": ((10, 11), ("endo", "endo_mem", "endo_lum")),
    "lyso": ((12, 13), ("lyso", "lyso_mem", "lyso_lum")),
    "ld": ((14, 15), ("ld", "ld_mem", "ld_lum")),
    "er": (
        (16, 17, 18, 19, 20, 21),
        ("er", "er_mem", "er_lum", "eres", "eres_mem", "eres_lum", "ne", "ne_mem", "ne_lum"),
    ),
    "ne": ((20, 21), ("ne", "ne_mem", "ne_lum")),
    "np": ((22, 23), ("np", "np_out", "np_in")),
    "mt": ((30, 36), ("mt", "mt_out", "mt_in")),
}


@dataclass(frozen=True)
class CosemOptions:
    """What the labels are made of.

    Attributes:
        source: an array of class ids, or a group with an array for each part.
        output_file: the Zarr container.
        organelles: name → class ids or names of its parts; see `parse_organelle`.
        out_group: the labels are ``out_group/NAME``.
        mask_dataset: gets 255 where anything is annotated; None for no such mask.
        unknown: values that mean "not annotated" besides the class id 0.
        chunk_size: edge of a chunk, voxels.
    """

    source: Source
    output_file: Path
    organelles: Mapping[str, tuple[int | str, ...]]
    out_group: str = "volumes/labels"
    mask_dataset: str | None = None
    unknown: tuple[int, ...] = ()
    chunk_size: int = 128


@dataclass(frozen=True)
class _Recipe:
    """How one output is made of the volumes: a label (``parts``) or the mask of what is annotated."""

    volumes: tuple[Volume, ...]
    ids: tuple[int, ...]
    unknown: tuple[int, ...]
    is_mask: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
        """Return where the output is set."""
        known = [~np.isin(array, self.unknown) for array in arrays]
        if self.is_mask:
            zero_is_unknown = bool(self.ids)
            return np.logical_and.reduce(
                [k & (array != 0) if zero_is_unknown else k for k, array in zip(known, arrays, strict=True)]
            )
        inside = [np.isin(array, self.ids) if self.ids else array != 0 for array in arrays]
        return np.logical_or.reduce([i & k for i, k in zip(inside, known, strict=True)])


def parse_organelle(text: str) -> tuple[str, tuple[int | str, ...]]:
    """Read ``er`` (a name of `ORGANELLES`), ``er=16,17`` (class ids) or ``er=er_mem,er_lum`` (arrays).

    Raises:
        ConfigError: an unknown name, or nothing after the sign.
    """
    name, sign, parts = text.partition("=")
    if sign:
        chosen = tuple(int(part) if part.isdecimal() else part for part in parts.split(",") if part)
        if name and chosen and len({type(part) for part in chosen}) == 1:
            return name, chosen
        raise ConfigError(
            explain("organelles", text, "NAME=ID,ID… or NAME=ARRAY,ARRAY…", "Name its parts after the sign")
        )
    if name not in ORGANELLES:
        raise ConfigError(
            explain(
                "organelles", text, f"{', '.join(ORGANELLES)}, or NAME=PARTS",
                f"Choose one.{did_you_mean(name, ORGANELLES)}",
            )
        )  # fmt: skip
    ids, names = ORGANELLES[name]
    return name, (*ids, *names)


def make_labels(
    options: CosemOptions, *, num_workers: int, progress: bool = True
) -> Iterator[tuple[str, JobReport]]:
    """Make the labels of all organelles; everything is checked before the first is made.

    Yields:
        dataset and report of each.

    Raises:
        ConfigError: no voxel size anywhere, or ids for an array of parts.
        DataError: arrays are missing, or lie in different places; another output is there.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    recipes = plan_labels(options)
    for dataset, recipe in recipes.items():
        job, output = prepare_labels(options, dataset, recipe)
        yield dataset, run_stage(job, output, num_workers, progress)


def plan_labels(options: CosemOptions) -> dict[str, _Recipe]:
    """Check everything and return how each output dataset is made; nothing is written."""
    check_chunks([options.chunk_size] * 3)
    source = options.source
    is_group = not exists(source.path)
    available = list_datasets(source.path) if is_group else []
    if is_group and not available:
        open_source(source)  # says what is missing
    volumes: dict[str, Volume] = {} if is_group else {"": _integers(open_source(source))}
    recipes = {}
    for name, parts in options.organelles.items():
        used = _names(source, available, name, parts) if is_group else [""]
        for part in used:
            if part not in volumes:
                volumes[part] = _integers(open_source(replace(source, array=f"{source.array}/{part}")))
        ids = () if is_group else tuple(part for part in parts if isinstance(part, int))
        if not is_group and not ids:
            raise ConfigError(
                explain(
                    f"the parts of {name}",
                    ", ".join(map(str, parts)),
                    f"class ids, since {source.path} is one array",
                    "Give NAME=ID,ID…",
                )
            )
        recipes[f"{options.out_group}/{name}"] = _recipe(
            options, [volumes[part] for part in used], ids, False
        )
    _require_one_place(list(volumes.values()))
    if options.mask_dataset is not None:
        recipes[options.mask_dataset] = _recipe(
            options, list(volumes.values()), () if is_group else (0,), True
        )
    return recipes


def _names(source: Source, available: Sequence[str], organelle: str, parts: Sequence[int | str]) -> list[str]:
    """Return the arrays (or pyramids) of a group that are parts of an organelle."""
    there = {name.split("/")[0] for name in available}
    wanted = [part for part in parts if isinstance(part, str)]
    found = [part for part in wanted if part in there]
    if not found:
        raise DataError(
            explain(
                f"the parts of {organelle} in {source.path}",
                "not there",
                f"some of {', '.join(wanted) or 'the arrays by name'}",
                f"There are: {', '.join(sorted(there)[:20])}. Give {organelle}=ARRAY,ARRAY…",
            )
        )
    return found


def _integers(volume: Volume) -> Volume:
    if volume.dtype.kind not in "uib":
        raise DataError(
            explain(f"the dtype of {volume.path}", volume.dtype, "integers (annotations)", "Choose another")
        )
    return volume


def _require_one_place(volumes: Sequence[Volume]) -> None:
    first = volumes[0]
    for volume in volumes[1:]:
        if (volume.voxel_size, volume.roi_voxels) != (first.voxel_size, first.roi_voxels):
            raise DataError(
                explain(
                    f"the place of {volume.path}",
                    f"{format_roi(volume.roi_voxels)} of {volume.voxel_size} nm",
                    f"that of {first.path}: {format_roi(first.roi_voxels)} of {first.voxel_size} nm",
                    "Choose arrays of one annotated crop",
                )
            )


def _recipe(options: CosemOptions, volumes: Sequence[Volume], ids: tuple[int, ...], is_mask: bool) -> _Recipe:
    identity = {
        "parts": [volume.fingerprint() for volume in volumes],
        "ids": list(ids),
        "unknown": list(options.unknown),
    }
    return _Recipe(tuple(volumes), ids, options.unknown, is_mask, identity)


def prepare_labels(
    options: CosemOptions, dataset: str, recipe: _Recipe, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Create one output and return the job that fills it."""
    first = recipe.volumes[0]
    output = create_output(
        dataset_path(options.output_file, dataset),
        job=JOB,
        shape=first.shape,
        dtype=np.dtype(np.uint8 if recipe.is_mask else np.uint32),
        voxel_size=first.voxel_size,
        offset_nm=first.offset_nm,
        chunk_shape=[options.chunk_size] * 3,
    )
    job = Job(
        name=JOB,
        grid=Grid(
            output.roi_voxels,
            block_shape or default_block_shape(output.write_shape, volume_shape=output.shape),
        ),
        start_worker=partial(_start, output, recipe),
        identity=recipe.identity,
        state_dir=state_dir(output),
    )
    return job, output


def _start(output: Volume, recipe: _Recipe) -> BlockFunction:
    return partial(_merge_block, output, recipe)


def _merge_block(output: Volume, recipe: _Recipe, block: Block) -> None:
    inside = recipe([volume.read_voxels(block.write_roi) for volume in recipe.volumes])
    value = 255 if recipe.is_mask else 1
    output.write_voxels(block.write_roi, inside.astype(output.dtype) * output.dtype.type(value))
