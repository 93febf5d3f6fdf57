"""Training and prediction settings from defaults, earlier runs, YAML files and the command line."""

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from incasem.config.files import read_yaml
from incasem.config.layers import Layer, build, schema_of, unknown_names, without
from incasem.config.overrides import parse_overrides
from incasem.config.paths import existing_file
from incasem.config.prediction import PredictionConfig
from incasem.config.training import TrainingConfig

log = logging.getLogger(__name__)

COMMAND_LINE = "command line"
EARLIER_RUN = "settings of the earlier run"
# How an earlier run came to be must not be repeated by a run that takes over its settings.
_NOT_INHERITED = ("training.start_from", "training.continue_id", "training.log_every", "sources")
_DATA = ("training.data", "validation.data")
# What describes a trained network; everything else of a training run belongs to its own machine and moment.
_OF_THE_NETWORK = ("task", "data", "model")
# Published settings that nothing has ever read, or that another mechanism replaces.
_WITHOUT_EFFECT = (
    "sources.class",
    "training.log_every",
    "training.pipeline",
    "validation.pipeline",
    "prediction.pipeline",
)

YamlFiles = Path | str | Sequence[Path | str] | None
Config = TypeVar("Config", TrainingConfig, PredictionConfig)


def load_training_config(
    yaml: YamlFiles, overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> TrainingConfig:
    """Return the settings of a training: defaults < ``base`` < YAML file(s) < command line.

    Args:
        yaml: the file, or several of which the later ones win, or None.
        overrides: words `a.b=c`.
        base: the recorded settings of another run (`--start_from`, `--repeat_run`). Names that this
            version does not know are left out with a warning. Data that a file leaves empty are
            that run's.

    Raises:
        ConfigError: unknown settings or values that are not allowed, all of them in one message.
    """
    files = _yaml_layers(yaml)
    if base is None:
        layers = files
    else:
        layers = [_earlier_run(base, TrainingConfig), *(_filled_in(layer) for layer in files)]
    layers.append(Layer(COMMAND_LINE, parse_overrides(overrides)))
    return _checked(build(TrainingConfig, layers))


def load_prediction_config(
    yaml: YamlFiles, overrides: Sequence[str] = (), training_run: Mapping[str, Any] | None = None
) -> PredictionConfig:
    """Return the settings of a prediction: defaults < YAML file(s) < training run < command line.

    Of the training run only `task`, `data` and `model` count, since they describe the trained network.

    Raises:
        ConfigError: unknown settings or values that are not allowed, all of them in one message.
    """
    layers = _yaml_layers(yaml)
    if training_run is not None:
        network = {key: training_run[key] for key in _OF_THE_NETWORK if key in training_run}
        layers.append(_earlier_run(network, PredictionConfig))
    layers.append(Layer(COMMAND_LINE, parse_overrides(overrides)))
    return _checked(build(PredictionConfig, layers))


def _yaml_layers(yaml: YamlFiles) -> list[Layer]:
    if yaml is None:
        return []
    files = [yaml] if isinstance(yaml, str | os.PathLike) else list(yaml)
    layers = []
    for given in files:
        content = read_yaml(existing_file(given, "the configuration file"))
        layers.append(Layer(str(given), content.values, content.lines))
    return layers


def _filled_in(layer: Layer) -> Layer:
    """Return a file without data that it leaves empty, as the published one does: that takes none away."""
    empty = [name for name in _DATA if _look_up(layer.values, name) is None]
    return replace(layer, values=without(layer.values, empty))


def _earlier_run(recorded: Mapping[str, Any], model: type[TrainingConfig] | type[PredictionConfig]) -> Layer:
    values = without(recorded, _NOT_INHERITED)
    unknown = unknown_names(values, schema_of(model))
    if unknown:
        log.warning(
            "left out of the %s, as this version has no such setting: %s", EARLIER_RUN, ", ".join(unknown)
        )
    return Layer(EARLIER_RUN, without(values, unknown))


def _checked(config: Config) -> Config:
    """Warn of published settings that were changed but do nothing."""
    given, default = config.to_dict(), type(config)().to_dict()
    for name in _WITHOUT_EFFECT:
        if _look_up(given, name) != _look_up(default, name):
            log.warning("%s has no effect; it is accepted because published configurations hold it", name)
    return config


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return values.get(section, {}).get(key)


def with_seed(config: Config) -> Config:
    """Return the settings with a seed: the given one, or a freshly drawn one that the run then records."""
    if config.seed is not None:
        return config
    return config.model_copy(update={"seed": secrets.randbelow(2**31)})
