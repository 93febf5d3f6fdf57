"""The only place that imports Sacred: without its warning and what makes its start slow or fragile."""

import warnings

with warnings.catch_warnings():
    # Sacred asks pkg_resources for versions; pyproject.toml holds setuptools at a version that has it.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    import sacred
    from sacred.dependencies import PackageDependency
    from sacred.host_info import HostInfoGetter
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver
    from sacred.serializer import flatten

# Sources are in git and versions are listed by us; Sacred would hash every imported module. Its parser of
# nvidia-smi's XML fails the run on values that it does not know.
sacred.SETTINGS.DISCOVER_SOURCES = "none"
sacred.SETTINGS.DISCOVER_DEPENDENCIES = "none"
sacred.SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False

__all__ = [
    "FileStorageObserver",
    "HostInfoGetter",
    "MongoObserver",
    "PackageDependency",
    "RunObserver",
    "flatten",
    "sacred",
]
