"""Affinities: for each voxel and offset, whether it and the voxel at that offset belong to one object.

The target comes from `affinity_targets` and, where they are learnt, `descriptors`; each channel is a sigmoid
of its own. The loss is the weighted sum of a binary cross-entropy balanced in each channel, one that is not,
the soft Dice loss, and the squared error of the descriptors. Stored are the probabilities, from which
`segmentation` makes objects; what is scored here are boundaries: voxels one of whose nearest edges is 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry, TaskSettings
from incasem.config.task import DESCRIPTOR_CHANNELS, Offset, is_nearest
from incasem.geometry import Coordinate, Roi, grow
from incasem.tasks.affinity_losses import balance_scale
from incasem.tasks.affinity_targets import affinity_targets, reach
from incasem.tasks.affinity_terms import PUBLISHED, AffinityRegionLoss, Terms, loss, step_totals
from incasem.tasks.balance import CLIP_FRACTION
from incasem.tasks.channels import DESCRIPTOR_COMPONENTS, Channel, edge_channels, nearest_affinities
from incasem.tasks.descriptors import context_voxels, local_shape_descriptors
from incasem.tasks.ground_truth import GroundTruth, LabelKind
from incasem.tasks.region_scores import class_fractions, overlap_in_training
from incasem.tasks.task import Predicted, Probability, StoredArray, Target, Truth

if TYPE_CHECKING:
    import torch

    from incasem.config.training import Loss

AFFINITIES = "affinities"
DESCRIPTORS = "descriptors"
_HALF = 128
"""Stored probabilities below it are below 1/2."""


@dataclass(frozen=True)
class Affinities:
    """See `tasks.task.Task` for what is not described here.

    Attributes:
        offsets: K edges (z, y, x, voxels).
        border_erosion: see `affinity_targets.erode_borders`.
        ignored_ids: see `affinity_targets.affinity_targets`.
        descriptor_sigma: voxels, z, y, x; None: no descriptors.
        clip: `loss.balance_labels`.
        terms: of the loss.
    """

    offsets: tuple[Offset, ...]
    border_erosion: int = 0
    ignored_ids: tuple[int, ...] = ()
    descriptor_sigma: tuple[float, float, float] | None = None
    clip: tuple[float, float] = CLIP_FRACTION
    terms: Terms = PUBLISHED

    name: ClassVar[str] = "affinities"
    scored_as: ClassVar[str] = "class 1 is the boundary: voxels with an affinity to a nearest voxel below 1/2"
    label_kind: ClassVar[LabelKind] = "instances"
    num_classes: ClassVar[int] = 2

    @classmethod
    def of(cls, settings: TaskSettings, voxel_size: Sequence[float], loss: "Loss | None" = None) -> Self:
        """Return what the settings say; ``loss`` None: of a prediction, which has none."""
        z, y, x = (settings.descriptor_sigma_nm / size for size in voxel_size)
        task = cls(
            settings.offsets,
            settings.border_erosion,
            settings.ignored_ids,
            (z, y, x) if settings.descriptors else None,
        )
        if loss is None:
            return task
        clip = (loss.balance_labels.clipmin, loss.balance_labels.clipmax)
        return cls(
            task.offsets, task.border_erosion, task.ignored_ids, task.descriptor_sigma, clip, Terms.of(loss)
        )

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the stored channels mean."""
        offsets = [list(offset) for offset in self.offsets]
        return {"type": self.name, "offsets": offsets, "descriptors": self.descriptor_sigma is not None}

    @property
    def channels(self) -> int:
        """One an offset, then the descriptors."""
        return len(self.offsets) + DESCRIPTOR_CHANNELS * (self.descriptor_sigma is not None)

    @property
    def meanings(self) -> tuple[Channel, ...]:
        """Edges, then the components of the descriptors."""
        return edge_channels(self.offsets) + (() if self.descriptor_sigma is None else DESCRIPTOR_COMPONENTS)

    @property
    def label_context(self) -> Coordinate:
        """Reach of the offsets with the erosion before them, or of the descriptors."""
        before, after = reach(self.offsets)
        erosion = (0, self.border_erosion, self.border_erosion)
        about = (0, 0, 0) if self.descriptor_sigma is None else context_voxels(self.descriptor_sigma)
        axes = zip(before, after, erosion, about, strict=True)
        return Coordinate(max(max(b, a) + e, d) for b, a, e, d in axes)

    @property
    def target_bytes(self) -> int:
        """A byte an edge, or four a channel with descriptors, and four of scale."""
        return self.channels * (5 if self.descriptor_sigma is None else 8)

    @property
    def _nearest(self) -> list[int]:
        return [channel for channel, offset in enumerate(self.offsets) if is_nearest(offset)]

    def class_names(self, entries: Sequence[DataEntry]) -> list[str]:
        """Return the name of the only one."""
        return ["boundary"]

    def target(self, labels_ZYX: NDArray[Any], mask_ZYX: NDArray[Any]) -> Target:
        """Return affinities (uint8), or with descriptors after them (float32), and the block's balance."""
        affinities, valid, descriptors = self._made(labels_ZYX, mask_ZYX)
        scale = balance_scale(affinities, valid, self.clip)
        if descriptors is None:
            return Target(affinities, scale)
        known_ZYX = self._inner(self._known(labels_ZYX, mask_ZYX))
        of_descriptors = np.broadcast_to(known_ZYX, descriptors.shape).astype(np.float32)
        return Target(
            np.concatenate([affinities.astype(np.float32), descriptors]),
            np.concatenate([scale, of_descriptors]),
        )

    def truth(self, truth: GroundTruth, roi_voxels: Roi) -> Truth:
        """Return edges, descriptors, boundaries; scored are voxels all of whose nearest edges are known."""
        with_context = grow(roi_voxels, self.label_context)
        labels_ZYX, mask_ZYX = truth.labels(with_context), truth.mask(with_context)
        # In cells, descriptors would depend a little on where the region begins.
        affinities, valid, descriptors = self._made(labels_ZYX, mask_ZYX, downsample=(1, 1, 1))
        counted_ZYX = truth.metric_mask(roi_voxels) & valid[self._nearest].all(axis=0)
        classes_ZYX = self.target_classes(affinities | ~valid)  # what is not known is shown as no boundary
        inside_ZYX, known_ZYX = self._inner(mask_ZYX), self._inner(self._known(labels_ZYX, mask_ZYX))
        ids_ZYX = np.where(known_ZYX, self._inner(labels_ZYX), 0).astype(np.uint64, copy=False)
        if descriptors is None:
            return Truth(affinities, valid, classes_ZYX, inside_ZYX, counted_ZYX, ids_ZYX)
        return Truth(
            np.concatenate([affinities.astype(np.float32), descriptors]),
            np.concatenate([valid, np.broadcast_to(known_ZYX, descriptors.shape)]),
            classes_ZYX,
            inside_ZYX,
            counted_ZYX,
            ids_ZYX,
        )

    def _made(
        self, labels_ZYX: NDArray[Any], mask_ZYX: NDArray[Any], downsample: Sequence[int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return affinities, which of them are known, and descriptors if they are learnt, without context."""
        affinities, valid = affinity_targets(
            labels_ZYX,
            self.offsets,
            ignored_ids=self.ignored_ids,
            mask_ZYX=mask_ZYX,
            border_erosion=self.border_erosion,
        )
        descriptors = None
        if self.descriptor_sigma is not None:
            descriptors = local_shape_descriptors(
                labels_ZYX, self.descriptor_sigma, downsample, context=self.label_context
            )
        return self._inner(affinities), self._inner(valid), descriptors

    def _inner(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array (…, Z, Y, X) without the context."""
        z, y, x = (slice(c, n - c) for c, n in zip(self.label_context, array.shape[-3:], strict=True))
        return np.ascontiguousarray(array[..., z, y, x])

    def _known(self, labels_ZYX: NDArray[Any], mask_ZYX: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where labels tell something: in the mask, and in no ignored object."""
        known_ZYX: NDArray[np.bool_] = mask_ZYX != 0
        if self.ignored_ids:
            known_ZYX &= ~np.isin(labels_ZYX, np.array(self.ignored_ids, labels_ZYX.dtype))
        return known_ZYX

    def totals(self, scales: "Iterable[torch.Tensor]") -> list[float]:
        """Return `affinity_terms.step_totals`."""
        return step_totals(scales, len(self.offsets))

    def loss(
        self,
        outputs: "torch.Tensor",
        target: "torch.Tensor",
        scale: "torch.Tensor",
        totals: Sequence[float] | None = None,
    ) -> "torch.Tensor":
        """Return `affinity_terms.loss`."""
        return loss(outputs, target, scale, len(self.offsets), self.terms, totals)

    def region_loss(self) -> AffinityRegionLoss:
        """Return `affinity_terms.AffinityRegionLoss`."""
        return AffinityRegionLoss(len(self.offsets), self.clip, self.terms)

    def training_metrics(
        self, outputs: "torch.Tensor", target: "torch.Tensor", scale: "torch.Tensor", mask: "torch.Tensor"
    ) -> dict[str, float]:
        """Return share and F1 of boundaries among the voxels all of whose nearest edges are known."""
        nearest = self._nearest
        true = (target[:, nearest].amin(dim=1) == 0).to("cpu").numpy().view(np.uint8)
        predicted = (outputs[:, nearest].amin(dim=1) < 0).to("cpu").numpy().view(np.uint8)
        inside = (scale[:, nearest].amin(dim=1) > 0).to("cpu").numpy()
        return class_fractions(true, inside, self.num_classes) | overlap_in_training(
            predicted, true, inside, self.num_classes
        )

    def target_classes(self, target: NDArray[Any]) -> NDArray[Any]:
        """Return 1 (boundary) where one of the nearest edges is 0, else 0."""
        return (target[self._nearest].min(axis=0) == 0).view(np.uint8)

    def probabilities(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Return the sigmoid of each channel."""
        return outputs.sigmoid()

    def outputs(self, probabilities: "torch.Tensor") -> "torch.Tensor":
        """Return the logits."""
        return probabilities.logit_()

    def stored(self, dtype: Probability) -> tuple[StoredArray, ...]:
        """Return the descriptors, if they are learnt, and the affinities with their offsets."""
        kind, offsets = np.dtype(dtype), [list(offset) for offset in self.offsets]
        affinities = StoredArray(AFFINITIES, kind, len(offsets), attributes={"offsets": offsets})
        if self.descriptor_sigma is None:
            return (affinities,)
        return (StoredArray(DESCRIPTORS, kind, DESCRIPTOR_CHANNELS, scored=False), affinities)

    def decode(
        self, outputs_CZYX: "NDArray[np.floating[Any]] | torch.Tensor", dtype: Probability = "uint8"
    ) -> Mapping[str, NDArray[Any]]:
        """Return the sigmoid of the channels; uint8 holds ``round(255 p)``."""
        import torch

        with torch.inference_mode():
            probabilities = torch.as_tensor(outputs_CZYX).to(torch.float32).sigmoid()
            if dtype == "uint8":
                probabilities = probabilities.mul_(255).round_().to(torch.uint8)
            channels = probabilities.cpu().numpy()
        edges = len(self.offsets)
        if self.descriptor_sigma is None:
            return {AFFINITIES: channels}
        return {DESCRIPTORS: channels[edges:], AFFINITIES: channels[:edges]}

    def predicted(self, arrays: Mapping[str, NDArray[Any]]) -> Predicted:
        """Return boundaries: 1 less the smallest of the nearest affinities is their probability."""
        smallest_ZYX = arrays[AFFINITIES][self._nearest].min(axis=0)
        if smallest_ZYX.dtype == np.uint8:
            return Predicted((smallest_ZYX < _HALF).view(np.uint8), [255 - smallest_ZYX])
        one = smallest_ZYX.dtype.type(1)
        return Predicted((smallest_ZYX < 0.5).view(np.uint8), [smallest_ZYX, one - smallest_ZYX])

    def nearest_affinities(self, channels_CZYX: NDArray[Any]) -> NDArray[Any]:
        """Return `channels.nearest_affinities`."""
        return nearest_affinities(channels_CZYX, self.offsets)
