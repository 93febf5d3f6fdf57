"""Layers of a view: a pyramid, what it is, and how it looks."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from neuroglancer import CoordinateSpace, ImageLayer, SegmentationLayer
from neuroglancer.viewer_state import Layer as ShownLayer

from incasem.geometry import Roi, to_world
from incasem.viewing import shaders
from incasem.viewing.datasets import Dataset
from incasem.viewing.kinds import Kind, classes_in, grey_range, kind_of, probability_range
from incasem.viewing.precomputed import PrecomputedVolume
from incasem.viewing.pyramid import Pyramid
from incasem.viewing.served import ServedVolume

_EXCLUDED = "#ff3030"
_WORDS: dict[Kind, str] = {
    "image": "image",
    "rgb": "colour image",
    "channels": "image, one channel at a time",
    "segmentation": "segmentation",
    "mask": "mask",
    "probability": "probability map",
    "heatmap": "heat map",
}


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: unique in its view.
        pyramid: the data; a precomputed volume is read by the browser itself.
        kind: how it is shown.
        number: its place among the view's overlays; gives the colour.
        selected: labels that are selected from the start, which hides the others.
        visible: whether it is switched on from the start.
    """

    name: str
    pyramid: Pyramid | PrecomputedVolume
    kind: Kind
    number: int = 0
    selected: tuple[int, ...] = field(default=())
    visible: bool = True

    @property
    def roi_nm(self) -> Roi:
        """Where it lies in the world."""
        return to_world(self.pyramid.roi_voxels, self.pyramid.voxel_size)

    def describe(self) -> str:
        """Return a line for the terminal."""
        pyramid = self.pyramid
        shape = " × ".join(str(n) for n in pyramid.roi_voxels.shape)
        size = " × ".join(f"{v:g}" for v in pyramid.voxel_size)
        begin = ", ".join(str(b) for b in pyramid.roi_voxels.begin)
        levels = f", {len(pyramid.levels)} levels" if len(pyramid.levels) > 1 else ""
        channels = f"{pyramid.num_channels} channels, " if pyramid.num_channels is not None else ""
        return (
            f"{self.name}: {_WORDS[self.kind]}, {pyramid.dtype}, {channels}{shape} voxels of {size} nm from "
            f"voxel {begin}{levels}"
        )


def make_layers(
    pyramids: Sequence[tuple[Dataset, Pyramid]],
    *,
    shader_words: Sequence[str | None] | None = None,
    add_prefix: bool = False,
    selected: Sequence[int] = (),
) -> list[Layer]:
    """Return the layers of opened datasets, in their order but images below everything else.

    Args:
        pyramids: the datasets, and what they opened as.
        shader_words: one of `kinds.SHADERS` or None for each.
        add_prefix: put the container before each name; done anyway where names would be the same.
        selected: labels that segmentations have selected from the start.
    """
    words = shader_words or [None] * len(pyramids)
    names = layer_names([dataset for dataset, _ in pyramids], add_prefix=add_prefix)
    made, overlays = [], 0
    for (_, pyramid), name, word in zip(pyramids, names, words, strict=True):
        kind = kind_of(pyramid.path, pyramid.dtype, pyramid.num_channels, word)
        labels = tuple(selected) if kind == "segmentation" else ()
        made.append(Layer(name, pyramid, kind, overlays, labels))
        overlays += kind not in ("image", "rgb", "channels")
    return sorted(made, key=lambda layer: layer.kind not in ("image", "rgb", "channels"))


def layer_names(datasets: Sequence[Dataset], *, add_prefix: bool = False) -> list[str]:
    """Return a name for each dataset, no two the same."""
    shown = [dataset.name or os.path.basename(dataset.file.rstrip("/")) for dataset in datasets]
    files = {dataset.file for dataset in datasets}
    repeated = {name for name, count in Counter(shown).items() if count > 1}
    names = [
        os.path.join(_prefix(dataset.file), name)
        if dataset.name and (add_prefix or (name in repeated and len(files) > 1))
        else name
        for dataset, name in zip(datasets, shown, strict=True)
    ]
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _prefix(file: str) -> str:
    """Return the last two names of a container's path, as published."""
    return "/".join(file.rstrip("/").split("/")[-2:]).lstrip("/")


def shown(layer: Layer) -> ShownLayer:
    """Return a layer as neuroglancer takes it. Of some kinds a small sample is read."""
    if isinstance(layer.pyramid, PrecomputedVolume):
        return _precomputed(layer, layer.pyramid)
    if layer.kind == "segmentation":
        return _segmentation(layer, layer.pyramid)
    source = ServedVolume(
        layer.pyramid,
        kind="image",
        average=layer.kind != "mask",
        channel_name="c'" if layer.kind == "channels" else "c^",
    )
    program, controls, opacity = _program(layer, layer.pyramid)
    made = ImageLayer(source=source, shader=program, shader_controls=controls, opacity=opacity)
    if layer.kind == "channels":  # the first one to begin with, rather than the one in the middle
        made.local_dimensions = CoordinateSpace(names=["c'"], units="", scales=[1])
        made.local_position = [0]
    return cast(ShownLayer, made)


def precomputed_layers(volumes: Sequence[PrecomputedVolume], selected: Sequence[int] = ()) -> list[Layer]:
    """Return the layers of precomputed volumes, named as their folders."""
    return [
        Layer(
            os.path.basename(volume.path.rstrip("/")),
            volume,
            "segmentation" if volume.kind == "segmentation" else "image",
            number,
            tuple(selected) if volume.kind == "segmentation" else (),
        )
        for number, volume in enumerate(volumes)
    ]


def _precomputed(layer: Layer, volume: PrecomputedVolume) -> ShownLayer:
    source = f"precomputed://{volume.url}"
    if layer.kind != "segmentation":
        return cast(ShownLayer, ImageLayer(source=source))
    return cast(
        ShownLayer,
        SegmentationLayer(
            source=source, segments=list(layer.selected), color_seed=layer.number, selected_alpha=0.4,
            not_selected_alpha=0,
        ),
    )  # fmt: skip


def _program(layer: Layer, pyramid: Pyramid) -> tuple[str, dict[str, Any], float]:
    """Return shader, values of its controls, and opacity."""
    color = shaders.PALETTE[layer.number % len(shaders.PALETTE)]
    if layer.kind == "mask":
        excluded = "metric" in pyramid.path
        return shaders.mask(_EXCLUDED if excluded else "#000000", inside=False), {}, 0.35 if excluded else 0.6
    if layer.kind in ("probability", "heatmap"):
        heat = layer.kind == "heatmap"
        low_high = {"range": list(probability_range(pyramid))}
        program = shaders.HEATMAP if heat else shaders.probability(color)
        return program, {"value" if heat else "probability": low_high}, 0.6
    contrast = {"contrast": {"range": list(grey_range(pyramid))}}
    if layer.kind == "rgb":
        return shaders.rgb(pyramid.num_channels or 1), contrast, 1.0
    return shaders.GREY, contrast, 1.0


def _segmentation(layer: Layer, pyramid: Pyramid) -> ShownLayer:
    source = ServedVolume(pyramid, kind="segmentation", average=False, channel_name="c'")
    ids = classes_in(pyramid).ids if np.issubdtype(pyramid.dtype, np.integer) else ()
    colors = {i: shaders.PALETTE[(layer.number + k) % len(shaders.PALETTE)] for k, i in enumerate(ids)}
    return cast(
        ShownLayer,
        SegmentationLayer(
            source=source,
            segments=list(layer.selected),
            segment_colors=colors,
            color_seed=layer.number,
            selected_alpha=0.4,
            not_selected_alpha=0,
        ),
    )
