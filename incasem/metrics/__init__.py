"""Streaming scores: accumulators that take blocks and can be merged."""

from incasem.metrics.boundaries import BoundaryScores
from incasem.metrics.offenders import Offender
from incasem.metrics.overlap import ClassScores, OverlapAccumulator
from incasem.metrics.partition import PartitionAccumulator, PartitionScores
from incasem.metrics.precision_recall import PrecisionRecallAccumulator, PrecisionRecallCurve
from incasem.metrics.thresholds import ThresholdScores, ThresholdSweep

__all__ = [
    "BoundaryScores",
    "ClassScores",
    "Offender",
    "OverlapAccumulator",
    "PartitionAccumulator",
    "PartitionScores",
    "PrecisionRecallAccumulator",
    "PrecisionRecallCurve",
    "ThresholdScores",
    "ThresholdSweep",
]
