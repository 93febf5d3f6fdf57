"""Surfaces of labels."""

import numpy as np
import pytest

from incasem.viewing import find_datasets, meshes, open_pyramid
from incasem.viewing.meshes import LabelMeshes, Mesh, encode_mesh
from tests.viewing.conftest import write

VOXEL = (10, 5, 5)


def opened(path, word="labels"):
    return open_pyramid(find_datasets(str(path / "a.zarr"), word)[0])


@pytest.fixture
def ball():
    """A ball of 60 nm around a corner of voxels, the near one of voxel (10, 20, 30)."""
    z, y, x = np.ogrid[:20, :48, :56]
    inside = ((z + 0.5 - 10) * 2) ** 2 + (y + 0.5 - 20) ** 2 + (x + 0.5 - 30) ** 2 < 12**2
    return np.where(inside, 7, 0).astype(np.uint32)


def volume_nm3(mesh):
    a, b, c = (mesh.vertices_nm[mesh.faces[:, k]].astype(float) for k in range(3))
    return abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_a_surface_lies_around_its_label(tmp_path, ball):
    write(tmp_path / "a.zarr/labels", ball, (1, 2, 3), VOXEL)
    mesh = LabelMeshes(opened(tmp_path)).mesh(7)
    middle = (mesh.vertices_nm.min(0) + mesh.vertices_nm.max(0)) / 2
    np.testing.assert_allclose(middle, (30 * 5, 20 * 5, 10 * 10), atol=0.5)
    size = mesh.vertices_nm.max(0) - mesh.vertices_nm.min(0)
    np.testing.assert_allclose(size, (120, 120, 120), atol=6)
    assert volume_nm3(mesh) == pytest.approx((ball > 0).sum() * 10 * 5 * 5, rel=0.1)


def test_surfaces_of_a_label_at_the_end_of_the_volume_are_closed(tmp_path):
    write(tmp_path / "a.zarr/labels", np.ones((8, 8, 8), np.uint8), (0, 0, 0), (5, 5, 5))
    mesh = LabelMeshes(opened(tmp_path)).mesh(1)
    edges = np.sort(np.concatenate([mesh.faces[:, p] for p in ([0, 1], [1, 2], [2, 0])]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_no_such_label(tmp_path, ball):
    write(tmp_path / "a.zarr/labels", ball)
    assert LabelMeshes(opened(tmp_path)).mesh(8) is None
    assert LabelMeshes(opened(tmp_path)).mesh(2**63) is None


def test_labels_of_a_large_volume_are_found_afar_and_meshed_near(tmp_path, ball, monkeypatch):
    monkeypatch.setattr(meshes, "OVERVIEW_VOXELS", ball.size // 8)
    monkeypatch.setattr(meshes, "OBJECT_VOXELS", 20 * 40 * 40)
    write(tmp_path / "a.zarr/labels", ball, voxel_size=VOXEL)
    mesh = LabelMeshes(opened(tmp_path)).mesh(7)
    assert volume_nm3(mesh) == pytest.approx((ball > 0).sum() * 10 * 5 * 5, rel=0.1)


def test_a_label_that_is_large_itself_is_meshed_coarsely(tmp_path, monkeypatch):
    monkeypatch.setattr(meshes, "OVERVIEW_VOXELS", 32**3)
    monkeypatch.setattr(meshes, "OBJECT_VOXELS", 20**3)
    labels = np.zeros((64, 64, 64), np.uint64)
    labels[4:60, 4:60, 4:60] = 2**40
    write(tmp_path / "a.zarr/labels", labels, voxel_size=(5, 5, 5))
    mesh = LabelMeshes(opened(tmp_path)).mesh(2**40)
    assert len(mesh.vertices_nm) < 20**2 * 6 * 2
    assert volume_nm3(mesh) == pytest.approx((56 * 5) ** 3, rel=0.15)


def test_a_part_of_a_volume_has_its_own_surfaces(tmp_path, ball):
    write(tmp_path / "a.zarr/labels", ball, voxel_size=VOXEL)
    mesh = LabelMeshes(opened(tmp_path, "labels[:, 20:, 30:]")).mesh(7)
    assert mesh.vertices_nm.min() >= -2.5
    assert volume_nm3(mesh) == pytest.approx((ball > 0).sum() * 10 * 5 * 5 / 4, rel=0.2)


def test_the_format_of_neuroglancer():
    mesh = Mesh(np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[0, 1, 0]], np.uint32))
    content = encode_mesh(mesh, unit_nm=10)
    assert np.frombuffer(content[:4], "<u4")[0] == 2
    np.testing.assert_allclose(np.frombuffer(content[4:28], "<f4"), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert np.frombuffer(content[28:], "<u4").tolist() == [0, 1, 0]
