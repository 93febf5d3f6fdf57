"""Settings: YAML and JSON files, command-line overrides, and their checks.

A setting's default stands in one place, its model (`TrainingConfig`, `PredictionConfig`); the commented files
in `scripts/` repeat them for the reader, and a test holds the two together.
"""

from incasem.config.checks import (
    check_network_sizes,
    check_prediction_data,
    check_training_data,
    check_voxel_sizes,
    prediction_checks,
    training_checks,
)
from incasem.config.data_config import DataEntry, class_names, load_data_config
from incasem.config.loading import load_prediction_config, load_training_config, with_seed
from incasem.config.paths import data_config_path
from incasem.config.prediction import PredictionConfig
from incasem.config.task import TaskSettings
from incasem.config.task_checks import check_classes
from incasem.config.training import TrainingConfig

__all__ = [
    "DataEntry",
    "PredictionConfig",
    "TaskSettings",
    "TrainingConfig",
    "check_classes",
    "check_network_sizes",
    "check_prediction_data",
    "check_training_data",
    "check_voxel_sizes",
    "class_names",
    "data_config_path",
    "load_data_config",
    "load_prediction_config",
    "load_training_config",
    "prediction_checks",
    "training_checks",
    "with_seed",
]
