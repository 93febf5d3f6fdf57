"""The groups of settings that training and prediction share."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from incasem.config.fields import (
    Flag,
    Positive,
    PositiveTriple,
    Section,
    VoxelSizeTriple,
    not_allowed,
)

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class DataSettings(Section):
    """What the volumes must look like."""

    voxel_size: VoxelSizeTriple = (5.0, 5.0, 5.0)
    """nm; z, y, x; equal to `voxel_size` in every entry of a data configuration."""
    downsample_factor: Positive = 1
    """Published key; only 1 is possible."""
    num_classes: Positive = 2
    """Including the background; not used by affinities (`task.type`)."""


def _factors(value: Any) -> tuple[tuple[int, int, int], ...]:
    allowed = "a list of factors z, y, x (whole numbers of at least 1), one for each level below the first"
    if not isinstance(value, list | tuple):
        raise not_allowed(allowed)
    for factor in value:
        whole = isinstance(factor, list | tuple) and all(type(f) is int and f >= 1 for f in factor)
        if not whole or len(factor) != 3:
            raise not_allowed(allowed)
    return tuple((f[0], f[1], f[2]) for f in value)


class ModelSettings(Section):
    """The network."""

    type: Literal["Unet", "OneConv3d", "MultitaskUnet"] = "Unet"
    """`OneConv3d` is a single convolution, for tests; `MultitaskUnet` is published, but has no pipeline."""
    num_fmaps: Positive = 32
    num_fmaps_out: Positive = 2
    """Equal to `data.num_classes`; for affinities to the number of `task.offsets`, + 10 with descriptors."""
    fmap_inc_factor: Positive = 2
    downsample_factors: Annotated[tuple[tuple[int, int, int], ...], BeforeValidator(_factors)] = (
        (2, 2, 2),
    ) * 3
    """One pooling for each level below the first; for anisotropic data, for example, `[1, 2, 2]`."""
    constant_upsample: Flag = True


class NetworkSizes(Section):
    """One pass of the network: voxels read and voxels kept."""

    input_size_voxels: PositiveTriple = (204, 204, 204)
    """Read in one pass: the published network reads 47 voxels more on each side than it gives back."""
    output_size_voxels: PositiveTriple = (110, 110, 110)
    """Given back by it. Predictions use the two only for `tiling: published`, else they plan their own."""

    @property
    def are_default(self) -> bool:
        """Whether both sizes are the published ones, so that nobody need have chosen them."""
        fields = NetworkSizes.model_fields
        chosen = (self.input_size_voxels, self.output_size_voxels)
        return chosen == (fields["input_size_voxels"].default, fields["output_size_voxels"].default)
