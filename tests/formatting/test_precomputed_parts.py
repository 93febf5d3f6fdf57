"""What precomputed meshes are made of: surfaces of boxes, and files of many keys."""

import json
import math

import numpy as np
import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.formatting.precomputed import sharded
from incasem.formatting.precomputed.surfaces import STEPS, surfaces
from tests.formatting.precomputed_files import Meshes, is_closed, volume_of


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 12)] * 3), cut=st.integers(1, 11), axis=st.integers(0, 2),
    seed=st.integers(0, 10**6), few=st.integers(1, 4),
)  # fmt: skip
def test_surfaces_of_two_boxes_fit_whatever_the_labels(shape, cut, axis, seed, few):
    labels = np.random.default_rng(seed).integers(0, few + 1, shape).astype(np.uint64)
    padded = np.pad(labels, 2)  # cells from the centre before the first voxel on
    cut = min(cut, shape[axis])
    whole = {label: (v, f) for label, v, f in surfaces(padded)}
    low = {label: (v, f) for label, v, f in surfaces(padded.take(range(cut + 3), axis))}
    high = {label: (v, f) for label, v, f in surfaces(padded.take(range(cut, padded.shape[axis]), axis))}
    for label, (vertices, faces) in whole.items():
        pieces = []
        for part, shift in ((low, 0), (high, cut)):
            if label in part:
                v, f = part[label]
                moved = v + np.array([shift * STEPS if 2 - a == axis else 0 for a in range(3)])
                pieces.append(moved[f])
        together, alone = np.concatenate(pieces), vertices[faces]
        assert len(together) == len(alone)
        # Vertices within a cell, the means of those on its edges, may be rounded differently: by one step.
        a, b = (np.sort(t.mean(axis=1), axis=0) for t in (together, alone))
        assert np.abs(a - b).max() <= 1
        points, index = np.unique(together.reshape(-1, 3), axis=0, return_inverse=True)
        assert len(points) <= len(np.unique(vertices, axis=0)) + 1
        assert is_closed(index.reshape(-1, 3))


def test_thin_and_single_voxels_have_surfaces():
    labels = np.zeros((9, 9, 9), np.uint64)
    labels[4, 4, :] = 1
    labels[6, 6, 6] = 2
    made = {label: (v, f) for label, v, f in surfaces(labels)}
    assert set(made) == {1, 2}
    assert volume_of(made[2][0] / STEPS, made[2][1]) > 0
    assert made[2][0].mean(axis=0).tolist() == [5 * STEPS] * 3
    assert list(surfaces(np.zeros((5, 5, 5), np.uint64))) == []
    assert list(surfaces(np.ones((5, 5, 5), np.uint64))) == [], "nothing ends in this box"


@pytest.mark.parametrize("count", [0, 1, 300, 20_000, 10**6, 10**8])
def test_shards_hold_some_thousand_keys(count):
    made = sharded.Sharding.for_keys(count)
    assert count / made.shards <= 16_384
    assert count / (made.shards << made.minishard_bits) <= 256
    assert made.name(0) == "0" * max(1, math.ceil(made.shard_bits / 4)) + ".shard"


def test_many_shards_are_read_by_the_format(tmp_path):
    made = sharded.Sharding(minishard_bits=1, shard_bits=5)
    keys = sorted({2**63 + 5, 1, 2, 3, 65, 66, 129, 12345, 2**40 + 1})
    (tmp_path / "info").write_text(
        json.dumps({"@type": "neuroglancer_multilod_draco", "sharding": made.to_json()})
    )
    array = np.array(keys, np.uint64)
    for shard in range(made.shards):
        mine = array[made.shard_of(array) == shard]
        mine = mine[np.lexsort((mine, made.minishard_of(mine)))]
        if len(mine):
            with (tmp_path / made.name(shard)).open("wb") as stream:
                items = [
                    sharded.Item(int(k), f"value {k}".encode(), [b"before ", str(k).encode()]) for k in mine
                ]
                sharded.write_shard(stream, made, items)
    meshes = Meshes(tmp_path)
    for key in keys:
        content, at, size = meshes.stored(key)
        assert content[at : at + size] == f"value {key}".encode()
        assert content[:at].endswith(f"before {key}".encode())
    assert meshes.stored(4) is None
    # tensorstore reads the same files.
    store = tensorstore.KvStore.open(
        {"driver": "neuroglancer_uint64_sharded", "metadata": made.to_json(), "base": f"file://{tmp_path}/"}
    ).result()
    for key in keys:
        assert store.read(key.to_bytes(8, "big")).result().value == f"value {key}".encode()
