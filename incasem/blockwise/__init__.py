"""Whole-volume work, block by block: grids, jobs, stages, and what needs more than one block to be exact.

The result of a job does not depend on how it was cut into blocks, on the number of workers, or on what was
killed on the way.
"""

from incasem.blockwise.components import (
    ComponentTable,
    label_components,
    mask_of,
    without_holes,
    without_small_objects,
)
from incasem.blockwise.engine import run_in_process, run_job
from incasem.blockwise.grid import Block, Grid, default_block_shape
from incasem.blockwise.job import (
    BlockFunction,
    Job,
    JobReport,
    StagedFunction,
    WorkerUnusableError,
    count_of,
    format_seconds,
)
from incasem.blockwise.slots import worker_slot
from incasem.blockwise.stage import (
    Output,
    is_finished,
    is_finished_and_clean,
    mark_finished,
    run_stage,
    run_together,
)
from incasem.blockwise.state import finish
from incasem.blockwise.timing import DONE, FAILED, RESUMED, SKIPPED, STAGES, BlockRecord

__all__ = [
    "DONE",
    "FAILED",
    "RESUMED",
    "SKIPPED",
    "STAGES",
    "Block",
    "BlockFunction",
    "BlockRecord",
    "ComponentTable",
    "Grid",
    "Job",
    "JobReport",
    "Output",
    "StagedFunction",
    "WorkerUnusableError",
    "count_of",
    "default_block_shape",
    "finish",
    "format_seconds",
    "is_finished",
    "is_finished_and_clean",
    "label_components",
    "mark_finished",
    "mask_of",
    "run_in_process",
    "run_job",
    "run_stage",
    "run_together",
    "without_holes",
    "without_small_objects",
    "worker_slot",
]
