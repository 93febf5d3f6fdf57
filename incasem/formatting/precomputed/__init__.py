"""Labels for proofreading in the browser: neuroglancer's precomputed format, with meshes."""

from incasem.formatting.precomputed.export import PrecomputedOptions, export_precomputed

__all__ = ["PrecomputedOptions", "export_precomputed"]
