"""Recorded whole-volume runs: settings, run store, job, scores and report of one command."""
