"""Whole-volume prediction: plan, worker, writer."""

from incasem.prediction.device import choose_device, choose_devices
from incasem.prediction.job import EntryPrediction, predict_entries, predict_prepared
from incasem.prediction.outputs import output_container, output_group
from incasem.prediction.plan import Device, Planner, PredictionPlan
from incasem.prediction.predictor import Predictor
from incasem.prediction.preparation import PreparedPrediction, prepare_prediction
from incasem.prediction.tiling import AlignedTiling, FixedTiling, PublishedTiling, Tile, Tiling, tiling_for

__all__ = [
    "AlignedTiling",
    "Device",
    "EntryPrediction",
    "FixedTiling",
    "Planner",
    "PredictionPlan",
    "Predictor",
    "PreparedPrediction",
    "PublishedTiling",
    "Tile",
    "Tiling",
    "choose_device",
    "choose_devices",
    "output_container",
    "output_group",
    "predict_entries",
    "predict_prepared",
    "prepare_prediction",
    "tiling_for",
]
