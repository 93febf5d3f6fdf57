"""The cover picture of a shared model: a section, and what the network finds in the part that it can see."""

import numpy as np

from incasem.evaluation.report_pictures import encode_png, grey, paint_classes
from incasem.networks import ValidNetwork
from incasem.sharing.sample import Sample

_HEIGHT_PIXELS = 480
_DIMMED = 0.45


def cover_png(sample: Sample, network: ValidNetwork) -> bytes:
    """Return a PNG, twice as wide as high: the middle section of the input, and the classes painted over it.

    What lies outside the output is dimmed: it is context, of which the network says nothing.
    """
    classes_ZYX = sample.logits_NCZYX[0].argmax(axis=0)
    middle = classes_ZYX.shape[0] // 2
    raw = grey(sample.raw_NCZYX[0, 0, network.context_voxels[0] + middle])
    y, x = (slice(c, raw.shape[axis] - c) for axis, c in enumerate(network.context_voxels[1:]))
    painted = np.rint(raw * _DIMMED).astype(np.uint8)
    painted[y, x] = paint_classes(raw[y, x], classes_ZYX[middle])
    side = min(raw.shape[:2])
    panels = np.concatenate([raw[:side, :side], painted[:side, :side]], axis=1)
    times = max(1, _HEIGHT_PIXELS // side)
    return encode_png(panels.repeat(times, axis=0).repeat(times, axis=1))
