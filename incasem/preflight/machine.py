"""What the machine has against what the run needs: memory, disk, devices."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from incasem.prediction.plan import total_memory
from incasem.preflight.findings import Findings

_COMPRESSED = 0.05
"""Of the bytes of a prediction, what is left at best: probabilities of tissue compress to about a tenth."""
_NEARLY_ALL = 0.8


def gigabytes(count: float) -> str:
    """Return bytes as text."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def existing_parent(path: Path) -> Path:
    """Return the path or the nearest folder above it that is there."""
    path = path.expanduser().absolute()
    return next((p for p in (path, *path.parents) if p.exists()), Path("/"))


def check_devices(findings: Findings, devices: Sequence[torch.device], precision: str) -> None:
    """Add where the network runs, in which arithmetic."""
    names = []
    for device in dict.fromkeys(devices):
        if device.type == "cuda":
            names.append(f"{device} ({torch.cuda.get_device_name(device)})")
        else:
            names.append(f"{device} ({os.cpu_count()} cores)")
    findings.ok(
        "device", "torch.device", f"{', '.join(names)}, {precision}",
        devices=[str(device) for device in devices], precision=precision,
    )  # fmt: skip


def memory_of(device: torch.device) -> int:
    """Return the memory (bytes) that a device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return total_memory()


def check_memory(findings: Findings, about: str, needed: int, device: torch.device, todo: str) -> None:
    """Add whether the memory of a device holds what is needed.

    Args:
        findings: gets it.
        about: what needs it.
        needed: bytes, estimated.
        device: whose memory.
        todo: what to do where it does not.
    """
    there = memory_of(device)
    text = f"about {gigabytes(needed)} needed, {device} has {gigabytes(there)}"
    figures = {"needed_bytes": int(needed), "there_bytes": there}
    if needed > there:
        findings.error("memory", about, text, todo, **figures)
    elif needed > _NEARLY_ALL * there:
        findings.warning("memory", about, text, todo, **figures)
    else:
        findings.ok("memory", about, text, **figures)


def check_disk(findings: Findings, about: str, needed: int, folder: Path, *, compresses: bool) -> None:
    """Add whether a folder can be written, and whether its disk holds what will be written.

    Args:
        findings: gets it.
        about: what is written.
        needed: bytes before compression.
        folder: where; it need not be there yet.
        compresses: whether the files will be much smaller.
    """
    parent = existing_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        findings.error(
            "disk", about, f"{folder} cannot be made: no permission to write to {parent}",
            "Choose another folder, or change its permissions.",
        )  # fmt: skip
        return
    free = shutil.disk_usage(parent).free
    how = " before compression" if compresses else ""
    text = f"{gigabytes(needed)}{how} to be written to {folder}, {gigabytes(free)} free"
    figures = {"needed_bytes": int(needed), "free_bytes": free}
    todo = "Make room there, or choose another disk."
    if needed * (_COMPRESSED if compresses else 1) > free:
        findings.error("disk", about, text, todo, **figures)
    elif needed > free or (not compresses and needed > _NEARLY_ALL * free):
        findings.warning("disk", about, text, todo, **figures)
    else:
        findings.ok("disk", about, text, **figures)
