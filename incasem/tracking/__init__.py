"""Run tracking: the Sacred experiment, the run stores and their look-ups.

Sacred and pymongo are imported when a run starts or a store is opened, not with this room.
"""

from incasem.tracking.cards import MODEL_CARDS, find_training_settings, published_checkpoint
from incasem.tracking.environment import git_state
from incasem.tracking.experiment import Outcome, Run, run_experiment
from incasem.tracking.folders import checkpoint_folder
from incasem.tracking.importing import import_archive
from incasem.tracking.places import PREDICTIONS, TRAININGS, find_store, open_store
from incasem.tracking.stores import DirectoryStore, Metric, RunInfo, RunStore
from incasem.tracking.transfer import TransferReport, export_runs

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
    "TransferReport",
    "checkpoint_folder",
    "export_runs",
    "find_store",
    "find_training_settings",
    "git_state",
    "import_archive",
    "open_store",
    "published_checkpoint",
    "run_experiment",
]
