"""The groups of settings that training and prediction share."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SerializerFunctionWrapHandler, model_serializer
from pydantic_core import PydanticCustomError

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


Triple = tuple[int, int, int]


def _triples(value: Any, allowed: str) -> tuple[Triple, ...]:
    if not isinstance(value, list | tuple):
        raise not_allowed(allowed)
    for triple in value:
        whole = isinstance(triple, list | tuple) and all(type(f) is int and f >= 1 for f in triple)
        if not whole or len(triple) != 3:
            raise not_allowed(allowed)
    return tuple((f[0], f[1], f[2]) for f in value)


def _factors(value: Any) -> tuple[Triple, ...]:
    return _triples(
        value, "a list of factors z, y, x (whole numbers of at least 1), one for each level below the first"
    )


def _kernels(value: Any) -> tuple[Triple, ...] | None:
    allowed = "a list of widths z, y, x (odd whole numbers), one for each level"
    if value is None:
        return None
    kernels = _triples(value, allowed)
    if not all(width % 2 for kernel in kernels for width in kernel):
        raise not_allowed(allowed)
    return kernels


def _kernel(value: Any) -> Triple:
    try:
        (kernel,) = _kernels([value]) or ()
    except PydanticCustomError:
        raise not_allowed("three widths z, y, x (odd whole numbers)") from None
    return kernel


def _filters(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(type(width) is int and width >= 1 for width in value):
        raise not_allowed("a list of whole numbers of at least 1, one for each level")
    return tuple(value)


def _norm(value: Any) -> Any:
    # On the command line `none` is the empty value, here it also is a choice.
    return "none" if value is None else value


_ONLY_RESIDUAL = ("filters", "kernel_sizes", "io_kernel_size", "norm", "activation")


class ModelSettings(Section):
    """The network."""

    type: Literal["Unet", "ResidualUnet", "OneConv3d", "MultitaskUnet"] = "Unet"
    """`ResidualUnet` has kernels of its own on each level, for anisotropic volumes; `OneConv3d` is a single
    convolution, for tests; `MultitaskUnet` is published, but has no pipeline."""
    num_fmaps: Positive = 32
    num_fmaps_out: Positive = 2
    """Equal to `data.num_classes`; for affinities to the number of `task.offsets`, + 10 with descriptors."""
    fmap_inc_factor: Positive = 2
    downsample_factors: Annotated[tuple[tuple[int, int, int], ...], BeforeValidator(_factors)] = (
        (2, 2, 2),
    ) * 3
    """One pooling for each level below the first; for anisotropic data, for example, `[1, 2, 2]`."""
    constant_upsample: Flag = True
    filters: Annotated[tuple[int, ...] | None, BeforeValidator(_filters)] = None
    """`ResidualUnet` only: feature maps of each level, instead of `num_fmaps` and `fmap_inc_factor`."""
    kernel_sizes: Annotated[tuple[Triple, ...] | None, BeforeValidator(_kernels)] = None
    """`ResidualUnet` only: width of the convolutions of each level, z, y, x; `[1, 3, 3]` is what publications
    that count x, y, z call 3×3×1. None: 3×3×3 everywhere."""
    io_kernel_size: Annotated[Triple, BeforeValidator(_kernel)] = (1, 5, 5)
    """`ResidualUnet` only: width of the first and the last convolution."""
    norm: Annotated[Literal["none", "group", "channel"], BeforeValidator(_norm)] = "none"
    """`ResidualUnet` only: normalisation. `channel`: of each voxel by itself. `group`: over the whole tile;
    predictions then compute tiles of one fixed size, `prediction.output_size_voxels`, even for a part."""
    activation: Literal["relu", "elu"] = "relu"
    """`ResidualUnet` only; PyTorch Connectomics takes elu."""

    @model_serializer(mode="wrap")
    def _without_those_of_others(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a network has not, unless it was set: other runs stay described as they were."""
        values: dict[str, Any] = handler(self)
        fields = ModelSettings.model_fields
        if self.type == "ResidualUnet":
            return values
        unset = {name for name in _ONLY_RESIDUAL if getattr(self, name) == fields[name].default}
        return {name: value for name, value in values.items() if name not in unset}


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
