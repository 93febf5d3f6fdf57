"""Volumes that must be of three dimensions and nothing else."""

from incasem.errors import DataError, explain
from incasem.volumes.volume import Volume


def check_spatial(volume: Volume, of: str = "") -> None:
    """Raise a DataError for a volume with other axes than z, y, x, such as channels.

    Args:
        volume: as opened.
        of: what it belongs to, for the message.
    """
    if volume.axes != ("z", "y", "x"):
        raise DataError(
            explain(
                f"axes of {volume.path}{f' of {of!r}' if of else ''}",
                ", ".join(volume.axes),
                "z, y, x",
                "Choose or extract a single channel",
            )
        )
