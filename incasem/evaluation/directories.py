"""Where the report of an evaluation goes."""

from pathlib import Path

from incasem.volumes import split_path


def report_directory(given: Path | None, scored: str, labels: str) -> Path:
    """Return the folder of a report: the ``given`` one, else ``evaluations/NAME`` beside what is scored.

    NAME is that of the container, of the dataset in it and of the labels'.

    Args:
        given: by the user, or None.
        scored: path of the (first) prediction or segmentation, ``x.zarr/DATASET``.
        labels: path of the truth.
    """
    if given is not None:
        return given.expanduser()
    container, dataset = split_path(Path(scored).expanduser())
    parts = [part for part in dataset.split("/") if part not in ("", "volumes", "predictions")]
    name = "_".join([container.stem, *parts, "vs", Path(labels).name])
    return container.parent / "evaluations" / name
