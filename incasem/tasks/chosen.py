"""The task that the settings ask for."""

from collections.abc import Callable, Mapping

from incasem.config import PredictionConfig, TrainingConfig
from incasem.config.training import Loss
from incasem.tasks.affinities import Affinities
from incasem.tasks.semantic import Semantic
from incasem.tasks.semantic_loss import Terms
from incasem.tasks.task import Task

Config = TrainingConfig | PredictionConfig


def task_of(config: Config) -> Task:
    """Return the task of a training or prediction; a prediction knows nothing of losses."""
    loss = config.loss if isinstance(config, TrainingConfig) else None
    return _TASKS[config.task.type](config, loss)


def _semantic(config: Config, loss: Loss | None) -> Task:
    if loss is None:
        return Semantic(config.data.num_classes)
    clip = (loss.balance_labels.clipmin, loss.balance_labels.clipmax)
    return Semantic(config.data.num_classes, loss.weight, clip, Terms.of(loss))


def _affinities(config: Config, loss: Loss | None) -> Task:
    return Affinities.of(config.task, config.data.voxel_size, loss)


_TASKS: Mapping[str, Callable[[Config, Loss | None], Task]] = {
    "semantic": _semantic,
    "affinities": _affinities,
}
