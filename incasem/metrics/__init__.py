"""Streaming scores: accumulators that take blocks and can be merged."""

from incasem.metrics.overlap import ClassScores, OverlapAccumulator

__all__ = ["ClassScores", "OverlapAccumulator"]
