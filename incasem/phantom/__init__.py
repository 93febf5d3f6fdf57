"""A generated FIB-SEM cell with exact labels.

For `incasem demo` and for tests: no microscope, no download. Shapes are signed-distance fields of warped
and drifted coordinates (`tissue`), organelles are painted one after the other (`cells`, `mitochondria`,
`vesicles`, `reticulum`), and `imaging` turns stain into grey values.
"""

from incasem.phantom.phantom import CLASSES, Phantom, make_phantom

__all__ = ["CLASSES", "Phantom", "make_phantom"]
