"""The cover picture of a shared model: a section, and what the network finds in the part that it can see."""

import numpy as np

from incasem.evaluation.report_pictures import encode_png, grey
from incasem.sharing.model import SharedModel
from incasem.sharing.sample import Sample

_HEIGHT_PIXELS = 480
_DIMMED = 0.45


def cover_png(sample: Sample, model: SharedModel) -> bytes:
    """Return a PNG, twice as wide as high: the middle section of the input, and what the network says of it.

    What lies outside the output is dimmed: it is context, of which the network says nothing.
    """
    context = model.network.context_voxels
    middle = sample.logits_NCZYX.shape[2] // 2
    said_CYX = model.outputs.activated(sample.logits_NCZYX[:, :, middle])[0]
    raw = grey(sample.raw_NCZYX[0, 0, context[0] + middle])
    y, x = (slice(c, raw.shape[axis] - c) for axis, c in enumerate(context[1:]))
    painted = np.rint(raw * _DIMMED).astype(np.uint8)
    painted[y, x] = model.outputs.painted(raw[y, x], said_CYX)
    side = min(raw.shape[:2])
    panels = np.concatenate([raw[:side, :side], painted[:side, :side]], axis=1)
    times = max(1, _HEIGHT_PIXELS // side)
    return encode_png(panels.repeat(times, axis=0).repeat(times, axis=1))
