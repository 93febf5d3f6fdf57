"""What is learnt: classes of voxels, or affinities between voxels of one object."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from incasem.config.fields import Flag, NotNegative, PositiveNumber, Section, not_allowed

Offset = tuple[int, int, int]

NEAREST: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
DESCRIPTOR_CHANNELS = 10


def _offsets(value: Any) -> tuple[Offset, ...]:
    allowed = (
        "a list of different offsets [z, y, x] (whole voxels), none of them [0, 0, 0], no two opposite (that "
        "is the same edge) and at least one to a nearest voxel, such as [-1, 0, 0]"
    )
    if not isinstance(value, list | tuple) or not value:
        raise not_allowed(allowed)
    for offset in value:
        whole = isinstance(offset, list | tuple) and all(type(step) is int for step in offset)
        if not whole or len(offset) != 3 or not any(offset):
            raise not_allowed(allowed)
    offsets = tuple((offset[0], offset[1], offset[2]) for offset in value)
    edges = {max(offset, tuple(-step for step in offset)) for offset in offsets}
    if len(edges) < len(offsets) or not any(is_nearest(offset) for offset in offsets):
        raise not_allowed(allowed)
    return offsets


def is_nearest(offset: Offset) -> bool:
    """Return whether an offset leads to one of the six nearest voxels."""
    return sum(abs(step) for step in offset) == 1


def _ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or any(type(one) is not int or one < 0 for one in value):
        raise not_allowed("a list of object ids, whole numbers of at least 0")
    return tuple(value)


class TaskSettings(Section):
    """What is learnt. A prediction takes this section from its training, as it takes `data` and `model`."""

    type: Literal["semantic", "affinities"] = "semantic"
    """semantic: the class of each voxel, as published; affinities: whether two voxels are of one object."""
    offsets: Annotated[tuple[Offset, ...], BeforeValidator(_offsets)] = NEAREST
    """Affinities: channel c at a voxel v is the edge between v and v + offsets[c]; voxels, z, y, x."""
    border_erosion: NotNegative = 0
    """Affinities: steps by which borders of touching objects become background, in y and x (SNEMI3D: 1)."""
    ignored_ids: Annotated[tuple[int, ...], BeforeValidator(_ids)] = ()
    """Affinities: object ids whose edges do not count, of voxels that nobody annotated."""
    descriptors: Flag = False
    """Affinities: learn 10 local shape descriptors as well, in channels after those of the affinities."""
    descriptor_sigma_nm: PositiveNumber = 80.0
    """Affinities: reach of the descriptors, standard deviation of a Gaussian in nm."""

    @property
    def affinity_channels(self) -> int:
        """Output channels of the network for affinities, with the descriptors if they are on."""
        return len(self.offsets) + DESCRIPTOR_CHANNELS * self.descriptors
