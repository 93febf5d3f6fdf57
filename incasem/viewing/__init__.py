"""Opening volumes in neuroglancer: lazily, at the right place, on this machine only.

`datasets` says what a command's words mean, `pyramid` reads piece by piece, `kinds` tells images from
segmentations, masks and probability maps; none of these needs neuroglancer, which is an optional dependency
(`extra`). `layers`, `scene` and `session` build on it; `rois` and `comparison` are ready-made scenes.
"""

from incasem.viewing.datasets import Dataset, find_datasets
from incasem.viewing.extra import import_neuroglancer
from incasem.viewing.pyramid import Pyramid, open_pyramid

__all__ = ["Dataset", "Pyramid", "find_datasets", "import_neuroglancer", "open_pyramid"]
