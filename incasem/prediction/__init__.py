"""Whole-volume prediction: plan, worker, writer."""
