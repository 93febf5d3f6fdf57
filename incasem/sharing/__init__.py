"""A trained network in files that other programs read, and other programs' settings read here."""

from incasem.sharing.export import ExportRequest, export_model
from incasem.sharing.model import About, ModelChoice

__all__ = ["About", "ExportRequest", "ModelChoice", "export_model"]
