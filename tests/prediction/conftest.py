import numpy as np
import pytest
import torch

from incasem.networks import Unet

SMALL = {"type": "Unet", "num_fmaps": 3, "downsample_factors": [[1, 2, 2], [2, 2, 2]]}


class MemoryRaw:
    """Grey values in memory in the place of a Volume; numpy itself does the reflection."""

    PAD = 80

    def __init__(self, array_ZYX, offset=(0, 0, 0)):
        self.array = array_ZYX
        self.offset = offset
        self.padded = np.pad(array_ZYX, self.PAD, mode="reflect")
        self.reads = []

    def read_voxels(self, roi, *, beyond="error", fill=0):
        assert beyond == "reflect"
        self.reads.append(roi)
        begin = [b - o + self.PAD for b, o in zip(roi.begin, self.offset, strict=True)]
        assert min(begin) >= 0
        return self.padded[tuple(slice(b, b + s) for b, s in zip(begin, roi.shape, strict=True))]


def one_pass(network, raw, roi):
    """Softmax of one call of the network over the whole ROI: the reference, with nothing of the predictor."""
    first = [b // s * s for b, s in zip(roi.begin, network.stride, strict=True)]
    wanted = [e - f for e, f in zip(roi.end, first, strict=True)]
    shape = network.input_shape_for(wanted)
    begin = [f - c - o + raw.PAD for f, c, o in zip(first, network.context_voxels, raw.offset, strict=True)]
    values = raw.padded[tuple(slice(b, b + s) for b, s in zip(begin, shape, strict=True))]
    assert values.shape == tuple(shape)
    with torch.no_grad():
        logits = network(torch.from_numpy(values / np.float32(255) * 2 - 1)[None, None].float())
    crop = tuple(slice(b - f, e - f) for b, e, f in zip(roi.begin, roi.end, first, strict=True))
    return logits.softmax(dim=1)[0][(slice(None), *crop)].numpy()


def random_network(seed=0, **model):
    torch.manual_seed(seed)
    network = Unet(**{k: v for k, v in (SMALL | model).items() if k != "type"})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # far from even probabilities
    return network


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Convolutions this small are quicker on one core, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_network():
    return random_network


@pytest.fixture(scope="session")
def network():
    return random_network()


@pytest.fixture(scope="session")
def small_model():
    """Settings of `network`."""
    return SMALL


@pytest.fixture(scope="session")
def reference():
    return one_pass


@pytest.fixture(scope="session")
def memory_raw():
    return MemoryRaw
