"""Prints, as JSON, the layers that napari shows for the paths given. Runs in napari's own environment."""

import json
import sys

import npe2
from napari.components import ViewerModel

npe2.PluginManager.instance().discover()
found = []
for path in sys.argv[1:]:
    for layer in ViewerModel().open(path, plugin="napari-ome-zarr"):
        levels = layer.data if layer.multiscale else [layer.data]
        found.append(
            {
                "kind": type(layer).__name__,
                "levels": [list(level.shape) for level in levels],
                "scale": [float(s) for s in layer.scale],
                "translate": [float(t) for t in layer.translate],
                "corner": [float(v) for v in levels[-1].reshape(-1)[:3]],
            }
        )
print("LAYERS " + json.dumps(found))
