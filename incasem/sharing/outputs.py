"""What the channels of a shared network mean, classes or affinities, for pages and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from incasem.evaluation.object_pictures import RGB, paint_affinities
from incasem.evaluation.report_pictures import paint_classes
from incasem.phantom import make_neurites, make_phantom
from incasem.tasks.affinities import Affinities
from incasem.tasks.channels import nearest_affinities

Cited = tuple[str, str]
"""DOI and text."""
Floats = NDArray[np.float32]
Voxels = tuple[float, float, float]

_PUBLISHED_METHOD = (
    "10.1083/jcb.202208005",
    "Gallusser et al., Deep neural network automated segmentation of cellular structures in volume electron "
    "microscopy, J Cell Biol (2023)",
)
_AFFINITY_LEARNING = (
    "10.1162/neco.2009.10-08-881",
    "Turaga et al., Convolutional networks can learn to generate affinity graphs for image segmentation, "
    "Neural Computation (2010)",
)
_SNEMI3D = (
    "10.48550/arXiv.1706.00120",
    "Lee et al., Superhuman accuracy on the SNEMI3D connectomics challenge (2017)",
)
_DESCRIPTORS = (
    "10.1038/s41592-022-01711-z",
    "Sheridan et al., Local shape descriptors for neuron segmentation, Nature Methods (2023)",
)


class Outputs(Protocol):
    """The meaning of a network's channels."""

    @property
    def tensor(self) -> str:
        """Name of the output behind the activation; what its values are called."""

    @property
    def meaning(self) -> str:
        """Of that tensor, half a sentence."""

    @property
    def channels(self) -> tuple[str, ...]:
        """A name for each."""

    @property
    def postprocessing(self) -> Mapping[str, Any]:
        """The activation, as BioImage.IO has it."""

    @property
    def tags(self) -> Sequence[str]:
        """For those who look for models."""

    @property
    def cite(self) -> Sequence[Cited]:
        """Papers of the method."""

    @property
    def names(self) -> Sequence[str]:
        """What the model finds, for its name."""

    def summary(self, size: str) -> str:
        """Return what the model does, one sentence, at a voxel size in words."""

    def settings(self) -> Mapping[str, Any]:
        """Return what a program needs to know of the channels besides their names."""

    def activated(self, logits_NCZYX: Floats) -> Floats:
        """Return the output after the activation: what `incasem predict` stores, as floats."""

    def code(self) -> str:
        """Return a line of Python from ``logits`` to what people want."""

    def explanation(self) -> str:
        """Return what the channels are, in Markdown."""

    def scored(self) -> str:
        """Return what the classes of recorded scores are, a sentence; empty where their names say it."""

    def validation(self) -> str:
        """Return how to validate on other data, in Markdown."""

    def painted(self, raw: RGB, activated_CYX: Floats) -> RGB:
        """Return a section (y, x, 3) with what the network says of it."""

    def phantom(self, shape_voxels: Sequence[int], seed: int, voxel_size: Voxels) -> NDArray[np.uint8]:
        """Return generated tissue (z, y, x) that has what the model looks for."""


@dataclass(frozen=True)
class ClassOutputs:
    """Classes of voxels; see `Outputs`.

    Attributes:
        channels: name of each class, the background first.
    """

    channels: tuple[str, ...]

    tensor: ClassVar[str] = "probabilities"
    meaning: ClassVar[str] = "probability of each class"
    postprocessing: ClassVar[Mapping[str, Any]] = {"id": "softmax", "kwargs": {"axis": "channel"}}
    cite: ClassVar[Sequence[Cited]] = (_PUBLISHED_METHOD,)

    @property
    def tags(self) -> Sequence[str]:
        """The kind of segmentation, then the classes."""
        return ("semantic-segmentation", "cells", *self.names)

    @property
    def names(self) -> Sequence[str]:
        """The classes without the background."""
        return self.channels[1:]

    def summary(self, size: str) -> str:
        """Return a sentence that names the classes."""
        return (
            f"Segments {', '.join(self.names)} in 3D electron microscopy at {size}: a probability for each "
            "voxel and class."
        )

    def settings(self) -> Mapping[str, Any]:
        """Return nothing: the names say it."""
        return {}

    def activated(self, logits_NCZYX: Floats) -> Floats:
        """Return the softmax over the classes."""
        shifted = logits_NCZYX - logits_NCZYX.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted, dtype=np.float32)
        result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
        return result

    def code(self) -> str:
        """Return the class of each voxel."""
        return "classes = logits.argmax(axis=1)"

    def explanation(self) -> str:
        """Return the numbers of the classes."""
        numbered = ", ".join(f"{number} = {name}" for number, name in enumerate(self.channels))
        return f"Softmax over the classes gives probabilities. The classes are {numbered}."

    def scored(self) -> str:
        """Return nothing."""
        return ""

    def validation(self) -> str:
        """Return how F1 is computed."""
        return (
            "annotate a box that was not trained on, predict it, and compare by F1 (Dice); `incasem predict` "
            "does so with `prediction.log_metrics=True`."
        )

    def painted(self, raw: RGB, activated_CYX: Floats) -> RGB:
        """Return the section with each class in its colour."""
        return paint_classes(raw, activated_CYX.argmax(axis=0))

    def phantom(self, shape_voxels: Sequence[int], seed: int, voxel_size: Voxels) -> NDArray[np.uint8]:
        """Return part of a generated cell."""
        return make_phantom(shape_voxels, seed, voxel_size).raw_ZYX


@dataclass(frozen=True)
class AffinityOutputs:
    """Affinities, each channel a sigmoid of its own; see `Outputs`.

    Attributes:
        offsets: of each channel, voxels, z, y, x.
        with_descriptors: local shape descriptors were learnt as well; the shared network has them no more.
    """

    offsets: tuple[tuple[int, int, int], ...]
    with_descriptors: bool = False

    tensor: ClassVar[str] = "affinities"
    meaning: ClassVar[str] = (
        "probability that voxels v and v + offset belong to one object; offsets: config.incasem.offsets_zyx"
    )
    postprocessing: ClassVar[Mapping[str, Any]] = {"id": "sigmoid"}
    tags: ClassVar[Sequence[str]] = (
        "instance-segmentation", "affinities", "connectomics", "neurons", "boundary",
    )  # fmt: skip
    names: ClassVar[Sequence[str]] = ("affinities",)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """``affinity_z`` for the voxel before along z, ``affinity_z_minus_9_y_plus_3`` for others."""
        return tuple(_channel_name(offset) for offset in self.offsets)

    @property
    def cite(self) -> Sequence[Cited]:
        """The papers of affinities, and of descriptors where they were learnt."""
        return (_AFFINITY_LEARNING, _SNEMI3D, *((_DESCRIPTORS,) if self.with_descriptors else ()))

    def summary(self, size: str) -> str:
        """Return a sentence that says what is left to do."""
        return (
            f"Affinities of neurons and other objects in 3D electron microscopy at {size}: for each voxel "
            f"and each of {len(self.offsets)} offsets, the probability that the voxel and the one at the "
            "offset belong to one object. Watershed and agglomeration turn them into segments."
        )

    def settings(self) -> Mapping[str, Any]:
        """Return the offsets."""
        return {"offsets_zyx": [list(offset) for offset in self.offsets]}

    def activated(self, logits_NCZYX: Floats) -> Floats:
        """Return the sigmoid of each channel."""
        with np.errstate(over="ignore"):  # exp(-x) is inf far below 0, and 1 / inf is right
            result: Floats = (1 / (1 + np.exp(-logits_NCZYX, dtype=np.float32))).astype(np.float32)
        return result

    def code(self) -> str:
        """Return the affinities."""
        return "affinities = 1 / (1 + np.exp(-logits))"

    def explanation(self) -> str:
        """Return the convention and the offsets."""
        rows = [
            f"| {number} | `{name}` | {z}, {y}, {x} |"
            for number, (name, (z, y, x)) in enumerate(zip(self.channels, self.offsets, strict=True))
        ]
        lines = [
            "The sigmoid of each channel by itself gives affinities. Channel c at voxel v is the edge "
            "between v and v + offset: 1 where both belong to one object, 0 where they do not or where one "
            "is background. This is the convention of waterz, mwatershed and PyTorch Connectomics; times 255 "
            "and rounded, it is what `incasem predict` stores and `incasem segment` reads.",
            "",
            "| channel | name | offset (z, y, x, voxels) |",
            "|---|---|---|",
            *rows,
        ]
        if self.with_descriptors:
            lines += [
                "",
                "Local shape descriptors were learnt beside the affinities, to make these better. They are "
                "left out here: nothing reads them, and the affinities are the same without.",
            ]
        return "\n".join(lines)

    def scored(self) -> str:
        """Return what the boundary is."""
        meaning: str = Affinities.scored_as
        return f"Here {meaning}; class 0 is the rest."

    def validation(self) -> str:
        """Return how segments are scored."""
        return (
            "annotate the objects of a box that was not trained on, predict it, make segments (`incasem "
            "segment`), and compare them by adapted Rand error and variation of information (`incasem "
            "evaluate-segmentation`)."
        )

    def painted(self, raw: RGB, activated_CYX: Floats) -> RGB:
        """Return the nearest affinities along z, y and x as red, green and blue."""
        return paint_affinities(nearest_affinities(activated_CYX, self.offsets))

    def phantom(self, shape_voxels: Sequence[int], seed: int, voxel_size: Voxels) -> NDArray[np.uint8]:
        """Return generated neuropil."""
        return make_neurites(shape_voxels, seed, voxel_size).raw_ZYX


def _channel_name(offset: tuple[int, int, int]) -> str:
    """Return a name that is a Python identifier, as BioImage.IO wants it."""
    steps = {axis: step for axis, step in zip("zyx", offset, strict=True) if step}
    if list(steps.values()) == [-1]:
        return f"affinity_{next(iter(steps))}"
    parts = [f"{axis}_{'minus' if step < 0 else 'plus'}_{abs(step)}" for axis, step in steps.items()]
    return "_".join(["affinity", *parts])
