"""Streaming scores: accumulators that take blocks and can be merged."""
