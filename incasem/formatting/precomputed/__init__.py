"""Labels for proofreading in the browser: neuroglancer's precomputed format, with meshes at several resolutions."""

from incasem.formatting.precomputed.export import PrecomputedOptions, export_precomputed

__all__ = ["PrecomputedOptions", "export_precomputed"]
