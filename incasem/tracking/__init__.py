"""Run tracking: the Sacred experiment, the run stores and their look-ups."""
