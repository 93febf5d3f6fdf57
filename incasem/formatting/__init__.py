"""Data formatting: conversion, CLAHE, masks, exclusion zones, export.

Each stage is a frozen dataclass of options and one function that runs it in workers, continues what was
interrupted, and returns a report.
"""

from incasem.formatting.convert import ConvertOptions, convert_stack, pair_inputs
from incasem.formatting.equalize import EqualizeOptions, equalize_histogram
from incasem.formatting.export import ExportOptions, export_images, pair_exports
from incasem.formatting.mask import MaskOptions, create_mask
from incasem.formatting.metric_mask import MetricMaskOptions, create_metric_mask
from incasem.formatting.pyramid import PyramidOptions, make_pyramid
from incasem.formatting.threshold import ThresholdOptions, apply_threshold

__all__ = [
    "ConvertOptions",
    "EqualizeOptions",
    "ExportOptions",
    "MaskOptions",
    "MetricMaskOptions",
    "PyramidOptions",
    "ThresholdOptions",
    "apply_threshold",
    "convert_stack",
    "create_mask",
    "create_metric_mask",
    "equalize_histogram",
    "export_images",
    "make_pyramid",
    "pair_exports",
    "pair_inputs",
]
