"""Trainings of PyTorch Connectomics v1, with our settings."""

from incasem.sharing.connectomics.importing import Import, ImportRequest, import_settings

__all__ = ["Import", "ImportRequest", "import_settings"]
