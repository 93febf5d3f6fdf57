"""Stand-ins of what the guide has its reader download: published cells and a published checkpoint."""

import json
from pathlib import Path

import numpy as np
import torch

from incasem.networks import Unet
from incasem.phantom import Phantom
from incasem.volumes import create_volume

VOXEL_SIZE = (5, 5, 5)


def write_cell(file: Path, phantom: Phantom, offset_voxels, organelle: str, *, mask: bool = False) -> None:
    """Write a cell as it is published: equalised raw data and labels at their place in the world."""
    datasets = {
        "volumes/raw_equalized_0.02": phantom.raw_ZYX,
        f"volumes/labels/{organelle}": phantom.semantic(organelle).astype(np.uint32),
    }
    if mask:
        datasets["volumes/mask"] = np.full(phantom.raw_ZYX.shape, 255, np.uint8)
    for name, array_ZYX in datasets.items():
        volume = create_volume(
            file / name,
            shape=array_ZYX.shape,
            dtype=array_ZYX.dtype,
            voxel_size=VOXEL_SIZE,
            offset_nm=[o * v for o, v in zip(offset_voxels, VOXEL_SIZE, strict=True)],
        )
        volume.write_voxels(volume.roi_voxels, array_ZYX)


def write_checkpoint(file: Path, *, num_fmaps: int = 32) -> dict[str, torch.Tensor]:
    """Write a checkpoint of the published format, with an Adam that has taken a step; return its weights."""
    torch.manual_seed(7)
    network = Unet(num_fmaps=num_fmaps)
    # Not what our own settings say: who restored it with the optimizer would train at this rate.
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=3e-5)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer.step()
    network.load_state_dict(state)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}, file)
    return state


def shrink(data_config: Path, places: dict[str, tuple[list[int], list[int]]]) -> None:
    """Give the regions of a data configuration that the guide prints an offset and a shape of the phantom."""
    entries = json.loads(data_config.read_text())
    assert entries.keys() == places.keys(), "the guide's nicknames"
    for nickname, (offset, shape) in places.items():
        entries[nickname] |= {"offset": offset, "shape": shape}
    data_config.write_text(json.dumps(entries, indent=4))
