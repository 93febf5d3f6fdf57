"""Whole-volume prediction: plan, worker, writer."""

from incasem.prediction.device import choose_device
from incasem.prediction.job import EntryPrediction, predict_entries
from incasem.prediction.outputs import output_container, output_group
from incasem.prediction.plan import Device, Planner, PredictionPlan
from incasem.prediction.predictor import Predictor
from incasem.prediction.tiling import AlignedTiling, PublishedTiling, Tile, Tiling

__all__ = [
    "AlignedTiling",
    "Device",
    "EntryPrediction",
    "Planner",
    "PredictionPlan",
    "Predictor",
    "PublishedTiling",
    "Tile",
    "Tiling",
    "choose_device",
    "output_container",
    "output_group",
    "predict_entries",
]
