"""A view: layers and boxes, where one looks at first, and the panels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroglancer import ViewerState

from incasem.geometry import Roi
from incasem.viewing.layers import Layer, shown
from incasem.viewing.served import dimensions_nm

# Where the panels are in a window of usual size; pixels, horizontal and vertical.
_WINDOW = (1800.0, 900.0)
_FILL = 0.9
_SMALL = 2**28
"""Voxels of a level that is read in no time."""
# From the front, a little from above and the side; x, y, z, w.
_TILT = (0.235, 0.241, 0.060, 0.940)
_BACKGROUND = "#1a1a1a"


@dataclass(frozen=True)
class Scene:
    """What is shown.

    Attributes:
        layers: the first one's voxels are the steps of the position; images first.
        focus_nm: box that fills the view at first; None: the smallest layer.
        annotations: further layers of neuroglancer, such as boxes, by name.
        overview_nm: box that the 3D view shows at first, without the slices; None: the focus, with them.
        layout: of the panels, by default the three planes and a 3D view.
        grid: rows and columns of panels.
        title: of the window.
    """

    layers: Sequence[Layer]
    focus_nm: Roi | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    overview_nm: Roi | None = None
    layout: Any = "4panel"
    grid: tuple[int, int] = (2, 2)
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

        In units of the finest edge of a voxel of the first layer. Where even the coarsest level is large, one
        pixel shows one of its voxels.
        """
        finest = min(self.voxel_size)
        z, y, x = self._focus().shape
        horizontal, vertical = (pixels / n for pixels, n in zip(_WINDOW, self.grid[::-1], strict=True))
        fitting = max(max(x, z) / horizontal, max(y, z) / vertical) / finest / _FILL
        return float(min([fitting, *(self._affordable(layer) / finest for layer in self.layers)]))

    @staticmethod
    def _affordable(layer: Layer) -> float:
        """Return nm a pixel at which a layer is quick to open: any, or one voxel of the coarsest level."""
        pyramid = layer.pyramid
        if math.prod(pyramid.shape_at(pyramid.coarsest)) <= _SMALL:
            return math.inf
        return min(f * v for f, v in zip(pyramid.coarsest, pyramid.voxel_size, strict=True))

    def state(self) -> ViewerState:
        """Return the state that neuroglancer shows. Samples of some layers are read."""
        state = ViewerState()
        state.title = self.title
        state.dimensions = dimensions_nm(self.voxel_size)
        state.display_dimensions = ["x", "y", "z"]
        state.position = self.position()
        state.cross_section_scale = self.zoom()
        state.projection_scale = min(
            1.2 * max(self._focus().shape) / min(self.voxel_size), self.zoom() * _WINDOW[1]
        )
        if self.overview_nm is not None:
            state.projection_scale = 1.6 * self._reach(self.overview_nm)
            state.projection_orientation = _TILT
            state.show_slices = False
        state.show_default_annotations = False
        state.cross_section_background_color = _BACKGROUND
        for layer in self.layers:
            state.layers.append(name=layer.name, layer=shown(layer), visible=layer.visible)
        for name, annotation in self.annotations.items():
            state.layers.append(name=name, layer=annotation)
        state.layout = self.layout
        return state

    def _reach(self, box_nm: Roi) -> float:
        """Return the edge of a cube around the position that holds a box; voxels as in `zoom`."""
        sides = zip(box_nm.begin, box_nm.end, self.position(), self.voxel_size, strict=True)
        return max(2 * max(abs(b - p * v), abs(e - p * v)) for b, e, p, v in sides) / min(self.voxel_size)

    def _focus(self) -> Roi:
        if self.focus_nm is not None:
            return self.focus_nm
        return min((layer.roi_nm for layer in self.layers), key=lambda roi: math.prod(roi.shape))
