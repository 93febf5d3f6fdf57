"""Generated FIB-SEM tissue with exact labels: part of a cell, or dense neurites.

For `incasem demo`, examples and tests: no microscope, no download. Shapes are signed-distance fields of
warped and drifted coordinates (`tissue`), organelles are painted one after the other (`cells`,
`mitochondria`, `vesicles`, `reticulum`), and `imaging` turns stain into grey values. Of neuropil,
`neurites` chooses the paths, `territories` gives each voxel to one, `neuropil` paints them.
"""

from incasem.phantom.neuropil import NEURON_IDS, make_neurites, section_membranes
from incasem.phantom.phantom import CLASSES, Phantom, make_phantom

__all__ = ["CLASSES", "NEURON_IDS", "Phantom", "make_neurites", "make_phantom", "section_membranes"]
