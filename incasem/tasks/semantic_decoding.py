"""What is stored of a semantic prediction: the class of each voxel and the probabilities of the classes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from incasem.tasks.task import Probability

if TYPE_CHECKING:
    import torch

SEGMENTATION = "segmentation"


def stored_classes(num_classes: int, dtype: Probability) -> range:
    """Return the classes whose probabilities are stored.

    In uint8 those of the foreground, since what they lack of 255 is the background's; in float32 all, as
    published.
    """
    return range(0 if dtype == "float32" else 1, num_classes)


def decode(
    logits_CZYX: "NDArray[np.floating[Any]] | torch.Tensor", dtype: Probability = "uint8"
) -> Mapping[str, NDArray[Any]]:
    """Return what is stored of a prediction: ``segmentation`` and ``prob_maps/class_c``.

    Args:
        logits_CZYX: output of the network.
        dtype: of the probabilities; uint8 holds ``round(255 p)``.

    Returns:
        ``segmentation``: the class of the largest logit, the lower one of equals; uint8 (uint16 above 256
        classes). ``prob_maps/class_c``, c of `stored_classes`: softmax over all classes.
    """
    import torch

    with torch.inference_mode():
        logits = torch.as_tensor(logits_CZYX).to(torch.float32)
        index_type = torch.uint8 if logits.shape[0] <= 256 else torch.int32
        best, segmentation = logits[0], torch.zeros(logits.shape[1:], dtype=index_type, device=logits.device)
        for index in range(1, logits.shape[0]):
            segmentation = torch.where(logits[index] > best, index, segmentation)
            best = torch.maximum(best, logits[index])
        stored = stored_classes(logits.shape[0], dtype)
        probabilities = torch.softmax(logits, dim=0)[stored.start :]
        if dtype == "uint8":
            probabilities = probabilities.mul_(255).round_().to(torch.uint8)
        maps = {f"prob_maps/class_{c}": p.cpu().numpy() for c, p in zip(stored, probabilities, strict=True)}
        classes = segmentation.cpu().numpy()
        if classes.dtype != np.uint8:
            classes = classes.astype(np.uint16)
        return {SEGMENTATION: classes} | maps
