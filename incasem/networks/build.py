"""From the `model` section of a config to a network."""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor, nn

from incasem.errors import ConfigError, did_you_mean, explain
from incasem.geometry import Coordinate
from incasem.networks.residual_unet import ResidualUnet
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
_RESIDUAL_SETTINGS: Final[dict[str, Any]] = {
    "filters": None,
    "kernel_sizes": None,
    "io_kernel_size": (1, 5, 5),
    "norm": "none",
    "activation": "relu",
}
"""Those that only `ResidualUnet` has, and their values that mean the same as not to give them."""
_TYPES = ("Unet", "ResidualUnet", "OneConv3d")


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
        model: the YAML keys of `model`: `type` (default "Unet") and the settings of `Unet` or
            `ResidualUnet`; absent ones keep their published defaults. OneConv3d reads `num_fmaps_out` and
            `in_channels` only.

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
    known = (*_UNET_SETTINGS, *_RESIDUAL_SETTINGS)
    for name in settings:
        if name not in known:
            raise ConfigError(
                explain(
                    f"model.{name}",
                    settings[name],
                    "the keys type, " + ", ".join(known),
                    f"Remove it.{did_you_mean(name, known)}",
                )
            )
    own = {name: settings.pop(name) for name in _RESIDUAL_SETTINGS if name in settings}
    if kind == "ResidualUnet":
        return ResidualUnet(**settings, **own)
    for name, value in own.items():
        if value != _RESIDUAL_SETTINGS[name] and value != _as_list(_RESIDUAL_SETTINGS[name]):
            raise ConfigError(
                explain(
                    f"model.{name}",
                    value,
                    f"{_as_list(_RESIDUAL_SETTINGS[name])} with model.type = {kind}, since only a "
                    "ResidualUnet has this setting",
                    f"Remove it, or set model.type=ResidualUnet{_instead(name)}",
                )
            )
    if kind == "OneConv3d":
        return OneConv3d(**{k: v for k, v in settings.items() if k in ("in_channels", "num_fmaps_out")})
    return Unet(**settings)


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _instead(name: str) -> str:
    return "; a Unet has model.num_fmaps and model.fmap_inc_factor" if name == "filters" else ""
