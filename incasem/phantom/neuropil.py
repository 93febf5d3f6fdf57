"""A block of neuropil: dense neurites with their membranes, mitochondria and vesicles."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.phantom.cells import MEMBRANE, granules
from incasem.phantom.fields import Array, SmoothField
from incasem.phantom.imaging import take_image
from incasem.phantom.mitochondria import paint_mitochondria
from incasem.phantom.neurites import plan_neurites
from incasem.phantom.phantom import Phantom, check_size
from incasem.phantom.shapes import band, blend
from incasem.phantom.territories import share_out
from incasem.phantom.tissue import FAR_NM, Tissue
from incasem.phantom.vesicles import paint_vesicles

NEURON_IDS = "neuron_ids"

_MEMBRANE_NM = 17.0  # half of what the membranes of two neighbours and the cleft between them take
_CRUMB_NM3 = 70.0**3  # a smaller piece that was cut off its neurite is given to a neighbour
_MITO_FRACTION = 0.07
_LEAST_LAYER_NM = 8.0  # thick sections are made of layers of about this thickness


def make_neurites(
    shape_voxels: Sequence[int], seed: int, voxel_size: Sequence[float] = (10.0, 10.0, 10.0)
) -> Phantom:
    """Generate a block of neuropil as FIB-SEM or, with thick sections, serial sections show it.

    Every voxel belongs to a neurite; membranes are part of them, as in annotations of real tissue. Membranes
    fade in places, mitochondria and vesicles are as dark as membranes, and neurites swell and thin out: grey
    values alone do not separate them. Equal arguments give equal bytes. Takes about two microseconds and 50
    bytes a voxel; as much for each layer of about 8 nm in a thick section.

    Args:
        shape_voxels: z, y, x; any size of at least one voxel.
        seed: not negative.
        voxel_size: nm, z, y, x. Neurites keep their size in nm; a membrane that runs obliquely through
            thick sections is smeared.

    Returns:
        The phantom; its only class is ``neuron_ids``, dense, ids 1…N without gaps.

    Raises:
        ConfigError: a size or the seed is not possible.
    """
    shape = check_size(shape_voxels, seed, voxel_size)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    depth, height, width = (float(v) for v in voxel_size)
    layers = max(1, round(depth / max(height, width, _LEAST_LAYER_NM)))
    tissue = Tissue((shape[0] * layers, *shape[1:]), (depth / layers, height, width), streams[0])
    shown_nm = tissue.extent_nm + 2 * tissue.slack_nm
    neurites = plan_neurites(shown_nm, streams[1])
    shift = np.full(3, tissue.slack_nm)
    neurites = neurites._replace(begins_nm=neurites.begins_nm - shift, ends_nm=neurites.ends_nm - shift)
    ids_ZYX, lead_ZYX = share_out(tissue, neurites)
    _paint_cytosol(tissue, ids_ZYX, lead_ZYX, streams[2])
    del lead_ZYX
    paint_mitochondria(tissue, streams[3], _MITO_FRACTION)
    paint_vesicles(tissue, streams[4])
    del tissue.free_ZYX
    # A section shows the mean of what lies in its thickness, and is labelled by what lies in its middle.
    density_ZYX = tissue.density_ZYX.reshape(shape[0], layers, *shape[1:]).mean(axis=1)
    del tissue.density_ZYX
    raw_ZYX = take_image(density_ZYX, voxel_size, streams[5])
    labels = {NEURON_IDS: _connected(ids_ZYX[layers // 2 :: layers], depth * height * width)}
    return Phantom(raw_ZYX, labels, (depth, height, width), seed)


def section_membranes(ids_ZYX: NDArray[np.integer], voxel_size: Sequence[float]) -> NDArray[np.uint8]:
    """Return where somebody who sees one section at a time would draw membranes: 1 there, else 0.

    Args:
        ids_ZYX: neurites, as `make_neurites` labels them.
        voxel_size: nm, z, y, x.

    The lines are as wide as the membranes of two neighbours with the cleft between them, and at least two
    pixels: no two neurites touch in a section.
    """
    drawn_ZYX = np.zeros(ids_ZYX.shape, np.uint8)
    for ids, drawn in zip(ids_ZYX, drawn_ZYX, strict=True):
        border = np.zeros(ids.shape, bool)
        for axis in (0, 1):
            apart = np.diff(ids, axis=axis) != 0
            for side in ((1, 0), (0, 1)):  # of the two pixels, either
                border |= np.pad(apart, [side if a == axis else (0, 0) for a in (0, 1)])
        if border.any():
            away = ndimage.distance_transform_edt(~border, sampling=tuple(voxel_size[1:]))
            drawn[...] = away <= max(0.0, _MEMBRANE_NM - max(voxel_size[1:]))
    return drawn_ZYX


def _paint_cytosol(
    tissue: Tissue, ids_ZYX: NDArray[np.uint32], lead_ZYX: Array, rng: np.random.Generator
) -> None:
    """Paint cytosol, granules, membranes, and the dense material of synapses at some of them."""
    tones = rng.normal(0.27, 0.045, int(ids_ZYX.max()) + 1).clip(0.17, 0.42).astype(np.float32)
    granules_ZYX = granules(tissue, rng)
    clouds, fading, synapses, folds, patches = (
        SmoothField(rng, (0, 0, 0), tissue.extent_nm, scale) for scale in (90.0, 130.0, 190.0, 110.0, 160.0)
    )
    half = max(_MEMBRANE_NM, tissue.finest_nm)
    for window in tissue.slabs():
        axes = tissue.axes_nm(window)
        border = _border(tissue, lead_ZYX, window)
        density = tones[ids_ZYX[window]] + 0.09 * clouds(*axes) + 0.05 * granules_ZYX[window]
        dark = np.clip(4 * (synapses(*axes) - 0.42), 0, 1) * np.clip(1.4 - border / 30, 0, 1)
        blend(density, MEMBRANE, dark)
        faint = np.clip(0.66 + 0.95 * fading(*axes), 0.12, 1.0)
        # Sheets of reticulum: as thin as plasma membranes, with no other neurite behind them.
        sheet = band(folds(*axes), 0, 0.1) * np.clip(5 * (patches(*axes) - 0.2), 0, 1)
        blend(density, 0.7, sheet * np.clip(border / 40 - 0.5, 0, 1))
        blend(density, 0.8, band(border, 0, half) * faint)
        tissue.density_ZYX[window] = density
        tissue.free_ZYX[window] = np.minimum(border - _MEMBRANE_NM, FAR_NM)


def _border(tissue: Tissue, lead_ZYX: Array, window: tuple[slice, slice, slice]) -> Array:
    """Return the distance (nm) to the boundary of the neurite: the lead over its slope."""
    depth = tissue.shape[0]
    begin, end = max(window[0].start - 1, 0), min(window[0].stop + 1, depth)
    lead = lead_ZYX[begin:end]
    inner = slice(window[0].start - begin, window[0].stop - begin)
    square = np.zeros(lead[inner].shape, np.float32)
    for axis, size in enumerate(tissue.voxel_size):
        steps = np.abs(np.diff(lead, axis=axis)) / np.float32(size)
        ends = [(0, 0)] * 3
        # The steeper of both sides: the lead has a kink at the boundary.
        ends[axis] = (1, 0)
        before = np.pad(steps, ends)
        ends[axis] = (0, 1)
        slope = np.maximum(before, np.pad(steps, ends))[inner]
        square += slope * slope
    # Between surfaces side by side the lead hardly changes; the boundary is not that far away.
    return (lead[inner] / np.sqrt(np.maximum(square, 0.09))).astype(np.float32)


def _connected(ids_ZYX: NDArray[np.uint32], voxel_nm3: float) -> NDArray[np.uint32]:
    """Number the connected pieces, crumbs given to a neighbour."""
    from skimage.measure import label

    pieces = label(ids_ZYX, connectivity=3).astype(np.uint32)
    sizes = np.bincount(pieces.reshape(-1))
    crumbs = sizes < _CRUMB_NM3 / voxel_nm3
    crumbs[0] = False
    if not crumbs[1:].all():
        for number, window in enumerate(ndimage.find_objects(pieces.astype(np.int32)), start=1):
            if window is not None and crumbs[number]:
                _give_away(pieces, number, window, crumbs)
    found, numbered = np.unique(pieces, return_inverse=True)
    return (numbered.reshape(pieces.shape) + 1).astype(np.uint32) if len(found) else pieces


def _give_away(
    pieces: NDArray[np.uint32], number: int, window: tuple[slice, ...], crumbs: NDArray[np.bool_]
) -> None:
    grown = tuple(
        slice(max(w.start - 1, 0), min(w.stop + 1, n)) for w, n in zip(window, pieces.shape, strict=True)
    )
    part = pieces[grown]
    own = part == number
    around = part[ndimage.binary_dilation(own) & ~own]
    around = around[~crumbs[around]]
    if around.size:
        part[own] = np.argmax(np.bincount(around))
