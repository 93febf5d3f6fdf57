"""What a task is: all that training, prediction and reports must know of what is learnt.

A task turns labels into the target of the network, the network's output into a loss and into the arrays that
are stored, and both into classes that are scored. `tasks.semantic` and `tasks.affinities` provide one each,
`tasks.chosen.task_of` returns that of the settings; nothing else asks which task it is. A task pickles, and
holds settings only.

Scores and pictures are those of *classes* of voxels, 0 being the background, whatever is learnt: so every
task has the published metrics, and a best checkpoint by its F1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry
from incasem.geometry import Coordinate, Roi
from incasem.tasks.channels import Channel
from incasem.tasks.ground_truth import GroundTruth, LabelKind

if TYPE_CHECKING:
    import torch

Probability = Literal["uint8", "float32"]
"""How probabilities are stored: uint8 holds ``round(255 p)``."""


class Target(NamedTuple):
    """What a sample is to teach.

    Attributes:
        values: what the network is to say: classes (Z, Y, X), or channels (K, Z, Y, X).
        scale: float32 of the same shape, weight in the loss; 0 where nothing is to be learnt.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32]


class Predicted(NamedTuple):
    """Stored arrays as the classes that are scored.

    Attributes:
        classes_ZYX: class of each voxel, 0 … C - 1.
        probabilities: of the classes but the background, or of all, as they are stored; perhaps none.
    """

    classes_ZYX: NDArray[Any]
    probabilities: Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Truth:
    """The annotation of a region, as it is scored.

    Attributes:
        target: see `Target.values`.
        learnt: nonzero where the loss counts; shape of ``target``.
        classes_ZYX: true class of each voxel, 0 … C - 1.
        mask_ZYX: inside the annotated region and its mask.
        counted_ZYX: where scores are taken.
        ids_ZYX: object of each voxel, uint64, 0 being none or not annotated; None where the labels are
            classes. To be shown.
    """

    target: NDArray[Any]
    learnt: NDArray[Any]
    classes_ZYX: NDArray[Any]
    mask_ZYX: NDArray[np.bool_]
    counted_ZYX: NDArray[np.bool_]
    ids_ZYX: NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class StoredArray:
    """One array of a prediction.

    Attributes:
        name: below the prediction's folder.
        dtype: of its elements.
        channels: length of the axis before z, y, x; None: there is none.
        scored: whether `Task.predicted` takes it.
        attributes: stored with it.
    """

    name: str
    dtype: np.dtype[Any]
    channels: int | None = None
    scored: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Elements of the axes before z, y, x."""
        return () if self.channels is None else (self.channels,)

    @property
    def bytes_per_voxel(self) -> int:
        """Of all channels, not compressed."""
        return self.dtype.itemsize * (self.channels or 1)


class RegionLoss(Protocol):
    """The training loss of a whole region from its blocks; it does not depend on how the region was cut."""

    def add(
        self, outputs_CZYX: NDArray[np.floating[Any]], target: NDArray[Any], learnt: NDArray[Any]
    ) -> None:
        """Count one block: output of the network, `Truth.target` and `Truth.learnt`."""

    def value(self) -> float:
        """Return the loss; 0 where nothing counted."""


class Task(Protocol):
    """See the module's description. ``outputs`` are what the network gives, before any softmax or sigmoid."""

    @property
    def name(self) -> str:
        """As `task.type` has it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What of the section `task` determines the bytes of a prediction; empty for the published task."""

    @property
    def scored_as(self) -> str:
        """A sentence that says what the scored classes are; empty where the labels say it."""

    @property
    def channels(self) -> int:
        """Of the network's output."""

    @property
    def meanings(self) -> tuple[Channel, ...]:
        """What each channel of the network's output means under symmetries."""

    @property
    def num_classes(self) -> int:
        """Classes that are scored, the background included."""

    @property
    def label_kind(self) -> LabelKind:
        """What the label datasets hold, see `GroundTruth`."""

    @property
    def label_context(self) -> Coordinate:
        """Voxels of labels and mask on each side of a block that its target depends on."""

    @property
    def target_bytes(self) -> int:
        """Of target and scale together, a voxel."""

    def class_names(self, entries: Sequence[DataEntry]) -> list[str]:
        """Return a name for each scored class from 1 on."""

    def target(self, labels_ZYX: NDArray[Any], mask_ZYX: NDArray[Any]) -> Target:
        """Return the target of a block from labels and mask that are `label_context` larger on each side."""

    def truth(self, truth: GroundTruth, roi_voxels: Roi) -> Truth:
        """Return the annotation of a region (absolute voxels)."""

    def totals(self, scales: "Iterable[torch.Tensor]") -> list[float]:
        """Return what the losses of some batches (their scales) are divided by; adds up over processes."""

    def loss(
        self,
        outputs: "torch.Tensor",
        target: "torch.Tensor",
        scale: "torch.Tensor",
        totals: Sequence[float] | None = None,
    ) -> "torch.Tensor":
        """Return the training loss of a batch, a scalar.

        Args:
            outputs: (N, C, Z, Y, X).
            target: `Target.values` of each sample, (N, …).
            scale: `Target.scale` of each sample, (N, …).
            totals: of the step that this batch is a part of; None: the batch is all of it.
        """

    def region_loss(self) -> RegionLoss:
        """Return the accumulator of the training loss of a region."""

    def training_metrics(
        self, outputs: "torch.Tensor", target: "torch.Tensor", scale: "torch.Tensor", mask: "torch.Tensor"
    ) -> dict[str, float]:
        """Return the published ``pct_class_c`` (share of a class) and ``dice_class_c_train`` of a batch."""

    def target_classes(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return the classes (Z, Y, X) that are scored of the target of a sample."""

    def probabilities(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Return the probabilities (C, …) of outputs (C, …); what views of a prediction are averaged as."""

    def outputs(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """Return outputs with these `probabilities`; may overwrite them."""

    def stored(self, dtype: Probability) -> tuple[StoredArray, ...]:
        """Return the arrays of a prediction; the last one, its main one, holds the job's state."""

    def decode(
        self, outputs_CZYX: "NDArray[np.floating[Any]] | torch.Tensor", dtype: Probability = "uint8"
    ) -> Mapping[str, NDArray[Any]]:
        """Return the arrays that `stored` describes of a block, by name."""

    def predicted(self, arrays: Mapping[str, NDArray[Any]]) -> Predicted:
        """Return stored arrays (those that are ``scored``) of a block as classes."""

    def nearest_affinities(self, channels_CZYX: NDArray[Any]) -> NDArray[Any] | None:
        """Return the affinities to a nearest voxel along z, y and x, (3, …), of the same type, to be shown.

        Args:
            channels_CZYX: probabilities or target, of all channels or without the descriptors.

        Returns:
            See `channels.nearest_affinities`; None where no affinities are learnt.
        """
