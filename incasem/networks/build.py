"""From the `model` section of a config to a network."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from incasem.errors import ConfigError, did_you_mean, explain
from incasem.geometry import Coordinate
from incasem.networks.unet import Unet
from incasem.networks.valid import ValidNetwork

_UNET_SETTINGS = (
    "in_channels",
    "num_fmaps",
    "num_fmaps_out",
    "fmap_inc_factor",
    "downsample_factors",
    "constant_upsample",
)
_TYPES = ("Unet", "OneConv3d")


class OneConv3d(ValidNetwork):
    """A single 3×3×3 convolution: the published network for trying out a pipeline.

    Named as published (`layer`), but without padding: zeros at a tile's border would make the result
    depend on how the volume is cut.
    """

    def __init__(self, in_channels: int = 1, num_fmaps_out: int = 2) -> None:
        super().__init__()
        self.num_fmaps_out = num_fmaps_out
        self.context_voxels, self.stride = Coordinate(1, 1, 1), Coordinate(1, 1, 1)
        self.smallest_input = Coordinate(3, 3, 3)
        self.layer = nn.Conv3d(in_channels, num_fmaps_out, kernel_size=3)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits (N, num_fmaps_out, z - 2, y - 2, x - 2)."""
        self.output_shape(raw_NCZYX.shape[2:])
        return self.layer(raw_NCZYX)


def build_network(model: Mapping[str, Any]) -> ValidNetwork:
    """Build the network that the `model` section of a config describes.

    Args:
        model: the YAML keys of `model`: `type` (default "Unet") and the settings of `Unet`; absent ones
            keep their published defaults. OneConv3d reads `num_fmaps_out` and `in_channels` only.

    Raises:
        ConfigError: unknown type or key, or a setting that the network refuses.
    """
    settings = dict(model)
    kind = settings.pop("type", "Unet")
    if kind == "MultitaskUnet":
        raise ConfigError(
            explain("model.type", kind, " or ".join(_TYPES), "It has no published pipeline: use Unet")
        )
    if kind not in _TYPES:
        raise ConfigError(
            explain("model.type", kind, " or ".join(_TYPES), f"Correct it.{did_you_mean(str(kind), _TYPES)}")
        )
    for name in settings:
        if name not in _UNET_SETTINGS:
            raise ConfigError(
                explain(
                    f"model.{name}",
                    settings[name],
                    "the keys type, " + ", ".join(_UNET_SETTINGS),
                    f"Remove it.{did_you_mean(name, _UNET_SETTINGS)}",
                )
            )
    if kind == "OneConv3d":
        return OneConv3d(**{k: v for k, v in settings.items() if k in ("in_channels", "num_fmaps_out")})
    return Unet(**settings)
