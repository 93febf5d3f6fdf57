"""What the training feed hands to the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch


@dataclass(frozen=True)
class Sample:
    """One sample; the output lies in the middle of the input.

    Attributes:
        raw: float32 (1, Z, Y, X) of the input in [-1, 1].
        labels: of the output, what is to be learnt (`tasks.task.Target`): int64 classes (Z, Y, X), or
            channels (K, Z, Y, X).
        loss_scale: float32, shape of ``labels``, weight in the loss; 0 where nothing is to be learnt.
        mask: uint8 (Z, Y, X), 1 inside the ROI and the entry's mask.
        metric_mask: uint8 (Z, Y, X), 1 where scores are taken.
        position: begin (z, y, x, absolute voxels) of the output in the volume, before it was deformed.
        entry: index of the entry in the data configuration.
        nickname: of the entry.
        voxel_size: nm, z, y, x.
        number: which sample of the training this is.
    """

    raw: torch.Tensor
    labels: torch.Tensor
    loss_scale: torch.Tensor
    mask: torch.Tensor
    metric_mask: torch.Tensor
    position: tuple[int, int, int]
    entry: int
    nickname: str
    voxel_size: tuple[float, float, float]
    number: int


@dataclass(frozen=True)
class Batch:
    """Samples side by side; see `Sample` for the values.

    Attributes:
        raw: (N, 1, Z, Y, X); mask, metric_mask: (N, Z, Y, X); labels, loss_scale: (N, …).
        position, entry, nickname, voxel_size, number: one a sample.
    """

    raw: torch.Tensor
    labels: torch.Tensor
    loss_scale: torch.Tensor
    mask: torch.Tensor
    metric_mask: torch.Tensor
    position: list[tuple[int, int, int]]
    entry: list[int]
    nickname: list[str]
    voxel_size: list[tuple[float, float, float]]
    number: list[int]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """Return the batch of some samples; a single one is not copied."""
        columns: dict[str, Any] = {}
        for column in fields(Sample):
            values = [getattr(sample, column.name) for sample in samples]
            if isinstance(values[0], torch.Tensor):
                columns[column.name] = torch.stack(values) if len(values) > 1 else values[0][None]
            else:
                columns[column.name] = values
        return cls(**columns)

    def describe(self) -> str:
        """Return which samples these are and where they lie, for messages."""
        return "; ".join(
            f"{number} (of {nickname!r}, output at voxel {list(position)})"
            for number, nickname, position in zip(self.number, self.nickname, self.position, strict=True)
        )
