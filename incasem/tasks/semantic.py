"""Semantic segmentation: each voxel gets one of C classes, class 0 being the background.

The target comes from `ground_truth` and is balanced by `semantic_loss`; the loss is the published balanced
cross-entropy or a weighted sum with others; decoding is softmax and argmax; scores are overlaps (F1, Jaccard,
precision, recall) and average precision of the classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry, class_names
from incasem.geometry import Coordinate, Roi
from incasem.tasks.balance import CLIP_FRACTION
from incasem.tasks.channels import Channel, Component
from incasem.tasks.ground_truth import GroundTruth, LabelKind
from incasem.tasks.region_scores import class_fractions, overlap_in_training
from incasem.tasks.semantic_decoding import SEGMENTATION, decode, stored_classes
from incasem.tasks.semantic_loss import PUBLISHED, RegionLoss, StepTotals, Terms, balance_scale, loss
from incasem.tasks.task import Predicted, Probability, StoredArray, Target, Truth

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Semantic:
    """The published task; see `tasks.task.Task` for what is not described here.

    Attributes:
        num_classes: C, which is also the number of the network's output channels.
        class_weights: `loss.weight`; None: all the same.
        clip: `loss.balance_labels`.
        terms: of the loss.
    """

    num_classes: int
    class_weights: tuple[float, ...] | None = None
    clip: tuple[float, float] = CLIP_FRACTION
    terms: Terms = PUBLISHED

    name: ClassVar[str] = "semantic"
    scored_as: ClassVar[str] = ""
    label_kind: ClassVar[LabelKind] = "classes"
    label_context: ClassVar[Coordinate] = Coordinate(0, 0, 0)
    target_bytes: ClassVar[int] = 5
    settings: ClassVar[Mapping[str, Any]] = {}

    @property
    def channels(self) -> int:
        """One a class."""
        return self.num_classes

    @property
    def meanings(self) -> tuple[Channel, ...]:
        """Classes look the same in a mirror."""
        return (Component(),) * self.num_classes

    @property
    def _weights(self) -> Sequence[float]:
        return (1.0,) * self.num_classes if self.class_weights is None else self.class_weights

    def class_names(self, entries: Sequence[DataEntry]) -> list[str]:
        """Return those of the label datasets."""
        return class_names(entries, self.num_classes)

    def target(self, labels_ZYX: NDArray[Any], mask_ZYX: NDArray[Any]) -> Target:
        """Return the classes as they are, with the balance of the block."""
        return Target(labels_ZYX, balance_scale(labels_ZYX, mask_ZYX, self.num_classes, self.clip))

    def truth(self, truth: GroundTruth, roi_voxels: Roi) -> Truth:
        """Return classes, mask and metric mask of a region."""
        classes_ZYX, mask_ZYX = truth.classes(roi_voxels), truth.mask(roi_voxels)
        return Truth(classes_ZYX, mask_ZYX, classes_ZYX, mask_ZYX, truth.metric_mask(roi_voxels))

    def totals(self, scales: "Iterable[torch.Tensor]") -> list[float]:
        """Return `StepTotals` as numbers."""
        totals = StepTotals.of(scales)
        return [totals.scale, totals.voxels, totals.samples]

    def loss(
        self,
        outputs: "torch.Tensor",
        target: "torch.Tensor",
        scale: "torch.Tensor",
        totals: Sequence[float] | None = None,
    ) -> "torch.Tensor":
        """Return `semantic_loss.loss`."""
        of_step = None if totals is None else StepTotals(totals[0], totals[1], int(totals[2]))
        return loss(outputs, target, scale, self._weights, self.terms, of_step)

    def region_loss(self) -> RegionLoss:
        """Return `semantic_loss.RegionLoss`."""
        return RegionLoss(self.num_classes, self._weights, self.clip, self.terms)

    def training_metrics(
        self, outputs: "torch.Tensor", target: "torch.Tensor", scale: "torch.Tensor", mask: "torch.Tensor"
    ) -> dict[str, float]:
        """Return shares and F1 of the classes inside the mask."""
        classes, inside = target.cpu().numpy(), mask.cpu().numpy()
        predicted = outputs.argmax(dim=1).cpu().numpy()
        return class_fractions(classes, inside, self.num_classes) | overlap_in_training(
            predicted, classes, inside, self.num_classes
        )

    def target_classes(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return the target itself."""
        return target

    def probabilities(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Return the softmax over the classes."""
        return outputs.softmax(dim=0)

    def outputs(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """Return the logarithms."""
        return probabilities.log_()

    def stored(self, dtype: Probability) -> tuple[StoredArray, ...]:
        """Return the probability maps and the segmentation."""
        classes = np.dtype(np.uint8 if self.num_classes <= 256 else np.uint16)
        maps = (f"prob_maps/class_{c}" for c in stored_classes(self.num_classes, dtype))
        return (
            *(StoredArray(name, np.dtype(dtype)) for name in maps),
            StoredArray(SEGMENTATION, classes),
        )

    def decode(
        self, outputs_CZYX: "NDArray[np.floating[Any]] | torch.Tensor", dtype: Probability = "uint8"
    ) -> Mapping[str, NDArray[Any]]:
        """Return `semantic_decoding.decode`."""
        return decode(outputs_CZYX, dtype)

    def predicted(self, arrays: Mapping[str, NDArray[Any]]) -> Predicted:
        """Return the segmentation with the probability maps, in the order of the classes."""
        maps = [array for name, array in arrays.items() if name != SEGMENTATION]
        return Predicted(arrays[SEGMENTATION], maps)

    def nearest_affinities(self, channels_CZYX: NDArray[Any]) -> None:
        """Return nothing: there are none."""
