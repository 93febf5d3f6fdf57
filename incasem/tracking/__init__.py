"""Run tracking: the Sacred experiment, the run stores and their look-ups.

Sacred and pymongo are imported when a run starts or a store is opened, not with this room.
"""

from incasem.tracking.cards import MODEL_CARDS, find_training_settings
from incasem.tracking.environment import git_state
from incasem.tracking.experiment import Outcome, Run, run_experiment
from incasem.tracking.places import PREDICTIONS, TRAININGS, open_store
from incasem.tracking.stores import DirectoryStore, Metric, RunInfo, RunStore

__all__ = [
    "MODEL_CARDS",
    "PREDICTIONS",
    "TRAININGS",
    "DirectoryStore",
    "Metric",
    "Outcome",
    "Run",
    "RunInfo",
    "RunStore",
    "find_training_settings",
    "git_state",
    "open_store",
    "run_experiment",
]
