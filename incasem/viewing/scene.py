"""A view: layers and boxes, where one looks at first, and the panels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroglancer import ViewerState

from incasem.geometry import Roi
from incasem.viewing.layers import Layer, shown
from incasem.viewing.served import REDUCED_ON_THE_FLY, dimensions_nm

# A panel of the four in a window of usual size; pixels, horizontal and vertical.
_PANEL = (900.0, 450.0)
_FILL = 0.9


@dataclass(frozen=True)
class Scene:
    """What is shown.

    Attributes:
        layers: the first one's voxels are the steps of the position; images first.
        focus_nm: box that fills the view at first; None: the smallest layer.
        annotations: further layers of neuroglancer, such as boxes, by name.
        layout: of the panels, by default the three planes and a 3D view.
        title: of the window.
    """

    layers: Sequence[Layer]
    focus_nm: Roi | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    layout: Any = "4panel"
    title: str = "incasem"

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Steps of the position; nm, z, y, x."""
        return self.layers[0].pyramid.voxel_size

    def position(self) -> list[float]:
        """Return where one looks at first: the middle of a voxel; z, y, x in voxels of the first layer."""
        focus = self._focus()
        return [
            math.floor((b + e) / 2 / v) + 0.5
            for b, e, v in zip(focus.begin, focus.end, self.voxel_size, strict=True)
        ]

    def zoom(self) -> float:
        """Return voxels a pixel at first: the focus fills a panel, but no data is asked for by the terabyte.

        In units of the finest edge of a voxel of the first layer. Without coarser levels, one pixel shows
        few voxels, so that few chunks are read.
        """
        finest = min(self.voxel_size)
        _, y, x = self._focus().shape
        fitting = max(x / _PANEL[0], y / _PANEL[1]) / finest / _FILL
        affordable = min(
            min(f * v for f, v in zip(layer.pyramid.coarsest, layer.pyramid.voxel_size, strict=True))
            * round(REDUCED_ON_THE_FLY ** (1 / 3))
            for layer in self.layers
        )
        return float(min(fitting, max(affordable / finest / 2, 1.0)))

    def state(self) -> ViewerState:
        """Return the state that neuroglancer shows. Samples of some layers are read."""
        state = ViewerState()
        state.title = self.title
        state.dimensions = dimensions_nm(self.voxel_size)
        state.display_dimensions = ["x", "y", "z"]
        state.position = self.position()
        state.cross_section_scale = self.zoom()
        state.projection_scale = 1.6 * max(self._focus().shape) / min(self.voxel_size)
        state.show_default_annotations = False
        for layer in self.layers:
            state.layers.append(name=layer.name, layer=shown(layer), visible=layer.visible)
        for name, annotation in self.annotations.items():
            state.layers.append(name=name, layer=annotation)
        state.layout = self.layout
        return state

    def _focus(self) -> Roi:
        if self.focus_nm is not None:
            return self.focus_nm
        return min((layer.roi_nm for layer in self.layers), key=lambda roi: math.prod(roi.shape))
