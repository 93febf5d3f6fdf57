"""Pixel classification: voxel features and the forest classifier."""
