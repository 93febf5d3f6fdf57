"""What a run records of the machine and of this package: versions, git state, GPUs."""

import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
_PACKAGES = (
    "incasem", "daisy", "funlib.geometry", "gunpowder", "numpy", "pydantic", "pymongo", "sacred",
    "scikit-image", "scipy", "tensorstore", "torch",
)  # fmt: skip
_USER_INFO = re.compile(r"(\w[\w+.-]*://)[^/@\s]*@")


def hide_credentials(value: Any) -> Any:
    """Return ``value`` (nested lists and dictionaries too) with user and password of each URL masked."""
    if isinstance(value, str):
        return _USER_INFO.sub(r"\1***@", value)
    if isinstance(value, dict):
        return {key: hide_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide_credentials(inner) for inner in value]
    return value


def package_versions() -> dict[str, str]:
    """Return the installed versions of what determines results."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_state(package: Path = PACKAGE) -> dict[str, Any] | None:
    """Return `url`, `commit` and `dirty` of the package's checkout, as Sacred lists repositories.

    None where the package is installed without its repository, git is missing, or nothing is committed yet.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    commit = _git(package, "rev-parse", "--verify", "HEAD")
    # A package installed into some other project's environment is not part of that project.
    if not top or not commit or Path(top).resolve() != package.parent.resolve():
        return None
    url = _git(package, "remote", "get-url", "origin") or f"git:/{top}"
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"url": hide_credentials(url), "commit": commit, "dirty": changes != ""}


def _git(package: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(package), *command], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()


def gpu_names() -> list[str]:
    """Return name, memory and driver of each GPU that nvidia-smi sees."""
    if platform.system() != "Linux" or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
