"""Whole volumes: check everything, plan, and run the blocks of each entry."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Grid, Job, JobReport, count_of, run_stage
from incasem.config import DataEntry, PredictionConfig
from incasem.errors import FailedBlocksError
from incasem.geometry import Roi
from incasem.prediction.entries import OpenedEntry
from incasem.prediction.outputs import OutputSet, output_folders
from incasem.prediction.plan import PredictionPlan
from incasem.prediction.preparation import PreparedPrediction, outputs_of, prepare_prediction, published_sizes
from incasem.prediction.worker import PredictionWorker, mask_is_empty
from incasem.tasks.chosen import task_of

logger = logging.getLogger(__name__)

_BLOCK_TIMEOUT_S = 6 * 3600.0


@dataclass(frozen=True)
class EntryPrediction:
    """What was done for one entry.

    Attributes:
        entry: the region.
        roi_voxels: what was predicted, absolute voxels.
        folder: holds the arrays.
        main: path of the main array: the class of each voxel, or the affinities.
        others: paths of the others: the probabilities of the classes, or the descriptors.
        plan: blocks and their cost.
        report: blocks done, skipped and resumed, time.
    """

    entry: DataEntry
    roi_voxels: Roi
    folder: Path
    main: Path
    others: tuple[Path, ...]
    plan: PredictionPlan
    report: JobReport

    @property
    def arrays(self) -> dict[str, Path]:
        """All arrays by name, the main one last."""
        return {path.relative_to(self.folder).as_posix(): path for path in (*self.others, self.main)}

    def summary(self) -> str:
        """Return what the terminal shows when the entry is done."""
        place = ""
        if self.entry.file.suffix != ".zarr":
            place = f" ({self.entry.file.name} takes one writer only, so this is a Zarr container beside it)"
        return f"{self.report.summary()}\n  {self.folder}{place}"


def predict_entries(
    config: PredictionConfig,
    entries: Sequence[DataEntry],
    *,
    checkpoint: Path | str,
    output_group: str,
    num_workers: int | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = logger.info,
) -> list[EntryPrediction]:
    """Prepare and predict in one go; see `prepare_prediction` and `predict_prepared`."""
    prepared = prepare_prediction(config, entries, checkpoint=checkpoint, num_workers=num_workers)
    return predict_prepared(prepared, output_group=output_group, progress=progress, tell=tell)


def predict_prepared(
    prepared: PreparedPrediction,
    *,
    output_group: str,
    progress: bool = True,
    tell: Callable[[str], None] = logger.info,
    ended: Callable[[EntryPrediction], None] | None = None,
) -> list[EntryPrediction]:
    """Predict the region of every entry, block by block, and store what the task says.

    A killed prediction continues when it is called again with the same ``output_group``; a finished one is
    left as it is.

    Args:
        prepared: checked and planned.
        output_group: folder inside each container, see `outputs.output_group`.
        progress: whether to show a progress line on standard error.
        tell: gets the plan of each entry, a line, before its first block.
        ended: gets each entry when its blocks have ended; that of failed blocks too, before the error.

    Raises:
        DataError: an output exists with another shape or other settings; nothing is written then.
        FailedBlocksError: blocks that could not be done; the other entries are not begun.
    """
    entries = [opened.entry for opened in prepared.entries]
    folders = output_folders(entries, prepared.config, output_group)
    outputs = [
        outputs_of(prepared.config, opened, folder)
        for opened, folder in zip(prepared.entries, folders, strict=True)
    ]
    for output in outputs:
        output.check()
    predictions = []
    for opened, output, plan in zip(prepared.entries, outputs, prepared.plans, strict=True):
        try:
            predictions.append(_predict(prepared, opened, output, plan, progress, tell))
        except FailedBlocksError as error:
            if ended is not None and error.report is not None:
                ended(_ended(opened, output, plan, error.report))
            raise
        if ended is not None:
            ended(predictions[-1])
    return predictions


def _predict(
    prepared: PreparedPrediction,
    opened: OpenedEntry,
    outputs: OutputSet,
    plan: PredictionPlan,
    progress: bool,
    tell: Callable[[str], None],
) -> EntryPrediction:
    settings = prepared.config.prediction
    grid = Grid(opened.roi, plan.block_shape, prepared.network.context_voxels)
    skip = _outside_mask(opened, grid, settings.tiling)
    plan = prepared.expected(plan)
    tell(f"{opened.entry.nickname}: {_described(plan, skip)}")
    volumes = outputs.open()
    worker = PredictionWorker(
        model=prepared.config.to_dict()["model"],
        checkpoint=prepared.checkpoint,
        devices=[str(device) for device in prepared.devices],
        precision=settings.precision,
        tile_shape=plan.tile_shape,
        published=published_sizes(prepared.config, opened),
        raw=opened.raw,
        mask=opened.mask,
        outputs=volumes,
        task=outputs.task,
        output_dtype=settings.output_dtype,
        tta=settings.tta,
        backend=settings.backend,
    )
    job = Job(
        name=f"predict {opened.entry.nickname}",
        grid=grid,
        start_worker=worker,
        identity=_identity(prepared, opened),
        state_dir=outputs.state_dir,
        skip=skip,
        block_timeout_s=_BLOCK_TIMEOUT_S,
    )
    report = run_stage(job, volumes[outputs.main], num_workers=prepared.num_workers, progress=progress)
    return _ended(opened, outputs, plan, report)


def _ended(
    opened: OpenedEntry, outputs: OutputSet, plan: PredictionPlan, report: JobReport
) -> EntryPrediction:
    return EntryPrediction(
        entry=opened.entry,
        roi_voxels=opened.roi,
        folder=outputs.folder,
        main=outputs.folder / outputs.main,
        others=tuple(outputs.folder / name for name in outputs.names[:-1]),
        plan=plan,
        report=report,
    )


def _described(plan: PredictionPlan, skip: NDArray[np.bool_] | None) -> str:
    if skip is None or not skip.any():
        return plan.describe()
    left_out = int(skip.sum())
    shorter = replace(plan, seconds=plan.seconds * (1 - left_out / skip.size))
    return f"{shorter.describe()}; {count_of(left_out, 'block')} outside the mask left out"


def _outside_mask(opened: OpenedEntry, grid: Grid, tiling: str) -> NDArray[np.bool_] | None:
    """Return which blocks the mask leaves nothing of, reading it block by block."""
    if opened.mask is None or tiling == "published":
        return None
    mask = opened.mask
    with ThreadPoolExecutor(4) as pool:
        empty = pool.map(lambda block: mask_is_empty(mask, block.write_roi), grid.blocks())
        skip = np.fromiter(empty, bool, len(grid)).reshape(grid.shape)
    if skip.all():
        logger.warning("the mask %s is 0 in the whole region of %s", mask.path, opened.entry.nickname)
    return skip


def _identity(prepared: PreparedPrediction, opened: OpenedEntry) -> dict[str, object]:
    """Return everything that determines the bytes written, but not how the region is cut."""
    settings = prepared.config.prediction
    identity: dict[str, Any] = {
        "checkpoint": _sha256(prepared.checkpoint),
        "model": prepared.config.to_dict()["model"],
        "precision": str(prepared.precision).removeprefix("torch."),
        "tiling": settings.tiling,
        "output_dtype": settings.output_dtype,
        "raw": opened.raw.fingerprint(),
        "mask": None if opened.mask is None else opened.mask.fingerprint(),
    }
    if task := task_of(prepared.config).settings:
        identity["task"] = dict(task)
    if settings.tta != "none":
        identity["tta"] = settings.tta
    if settings.backend != "torch":
        identity["backend"] = settings.backend
    if settings.tiling == "aligned" and prepared.network.depends_on_tile:
        identity["output_size_voxels"] = list(settings.output_size_voxels)
    if settings.tiling == "published":
        identity["input_size_voxels"] = list(settings.input_size_voxels)
        identity["output_size_voxels"] = list(settings.output_size_voxels)
    return identity


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
