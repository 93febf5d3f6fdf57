"""A stage: a job that fills one output, and marks that output as finished.

The finished-mark lies in the output's own attributes (key ``incasem``: job, identity, region), because the
job's folder of marks and logs is removed in the end.

Where one pass fills several outputs (`run_together`), each of them is still the result of a job of its own,
with its own mark: whatever asks for one of them later need not know with which others it was made.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from incasem.blockwise.engine import run_locked
from incasem.blockwise.job import BlockFunction, Job, JobReport, identity_as_json, region_as_json
from incasem.blockwise.state import claim, finish, marks_dir, refuse_other_identity, work_lock

__all__ = ["Output", "is_finished", "is_finished_and_clean", "mark_finished", "run_stage", "run_together"]


class Output(Protocol):
    """What a stage writes to: a `Volume`, or a folder of images with attributes of its own."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes as stored."""
        ...

    def set_attributes(self, **attributes: Any) -> None:
        """Merge into the stored attributes, durably and atomically."""
        ...


class RecognisableOutput(Output, Protocol):
    """An output that can be told from another one that was put in its place."""

    def fingerprint(self) -> Mapping[str, object]:
        """Return what tells them apart; JSON-able."""
        ...


def is_finished(job: Job, output: Output) -> bool:
    """Return whether ``output`` is the finished result of this job.

    Raises:
        DataError: it is the finished result of another job, or of other settings or inputs.
    """
    mark = output.attributes.get("incasem")
    if not isinstance(mark, Mapping) or "job" not in mark:
        return False
    refuse_other_identity(mark, _finished_mark(job), _name(job, output), "was written")
    return True


def is_finished_and_clean(job: Job, output: Output) -> bool:
    """Return `is_finished`, and clean what a run that was killed between its mark and its cleaning left."""
    if not is_finished(job, output):
        return False
    finish(job)
    return True


def run_stage(job: Job, output: Output, num_workers: int, progress: bool = True) -> JobReport:
    """Fill ``output`` by ``job``, continuing what an earlier run began; do nothing where it is finished.

    Args:
        job: the job; its ``state_dir`` lies inside the output and is removed in the end.
        output: what the job writes to; gets the finished-mark.
        num_workers: worker processes, 1 or more.
        progress: whether to show a progress line on standard error.

    Raises:
        FailedBlocksError: some blocks could not be done.
        DataError: the output belongs to another job, or another job works on it just now.
        ConfigError: the number of workers is below 1.
    """
    if is_finished_and_clean(job, output):
        return JobReport(job.name, 0, 0, len(job.grid), 0.0, 0, None)
    with work_lock(job) as lock:
        report = run_locked(job, [lock], num_workers=num_workers, progress=progress)
        mark_finished(job, output)
        finish(job)
    return report


def run_together(
    name: str,
    parts: Sequence[tuple[Job, RecognisableOutput]],
    start_worker: Callable[[], BlockFunction],
    num_workers: int,
    progress: bool = True,
) -> JobReport:
    """Fill several outputs in one pass over their blocks, continuing what an earlier one began.

    Args:
        name: of the pass; short.
        parts: each output, none of them finished, and the job that it is the result of. Blocks are those of
            the first; the jobs' own functions are not called.
        start_worker: as in `Job`; its function writes a block of every output.
        num_workers: worker processes, 1 or more.
        progress: whether to show a progress line on standard error.

    Raises:
        FailedBlocksError, DataError, ConfigError: as `run_stage`, for any of the outputs.
    """
    first = parts[0][0]
    # Marks lie in the first output. Whoever deletes another one makes them those of other outputs.
    identity = {"outputs": [output.fingerprint() for _, output in parts]}
    folder = first.state_dir / "together"
    job = replace(first, name=name, start_worker=start_worker, identity=identity, state_dir=folder)
    job = replace(job, state_dir=folder / marks_dir(job).name)
    with ExitStack() as stack:
        locks = [stack.enter_context(work_lock(one)) for one in (*(part for part, _ in parts), job)]
        for part, _ in parts:
            claim(part)
        report = run_locked(job, locks, num_workers=num_workers, progress=progress)
        for part, output in parts:
            mark_finished(part, output)
        for part, _ in parts:
            finish(part)
    return report


def mark_finished(job: Job, output: Output) -> None:
    """Mark ``output`` as the finished result of a job whose blocks were done in this process."""
    output.set_attributes(incasem=_finished_mark(job))


def _finished_mark(job: Job) -> dict[str, Any]:
    return {
        "job": job.name,
        "identity": identity_as_json(job.identity),
        "region": region_as_json(job.grid.total_roi),
    }


def _name(job: Job, output: Output) -> Path | str:
    return getattr(output, "path", None) or Path(job.state_dir).parent
