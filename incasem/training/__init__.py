"""Training: sources, augmentation, feed, trainer, validation, snapshots."""
