"""Precomputed folders: the file server, and what a browser makes of an export of ours."""

import io
import json
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("neuroglancer")

import neuroglancer
from PIL import Image

from incasem.cli import main
from incasem.errors import DataError
from incasem.formatting.precomputed import PrecomputedOptions, export_precomputed
from incasem.viewing.layers import precomputed_layers
from incasem.viewing.precomputed import is_precomputed, served_precomputed, serving
from incasem.viewing.scene import Scene
from tests.viewing.chromium import MISSING, PROGRAM
from tests.viewing.conftest import write
from tests.viewing.test_browser import SIZE, canvas, chromium, draw, pictures, viewer  # noqa: F401
from tests.viewing.test_layers import layers_of

FAR = 2**40


def in_browser(test):
    return pytest.mark.browser(pytest.mark.skipif(PROGRAM is None, reason=MISSING)(test))


CENTRES = {FAR + 1: (70, 76, 90), FAR + 2: (70, 76, 160), FAR + 70_000: (30, 30, 40)}
CORNER = (40, 50, -60)
"""Of the labels, absolute voxels."""
VOXEL = (10, 5, 5)


def labels_ZYX():
    """A ball across several nodes of the meshes, a bar that leaves the volume, and a small box."""
    z, y, x = np.mgrid[:140, :150, :200]
    made = np.zeros(z.shape, np.uint64)
    ball = (2 * (z - 70)) ** 2 + (y - 76) ** 2 + (x - 90) ** 2 < 60**2
    made[ball] = FAR + 1
    made[(abs(z - 70) < 10) & (abs(y - 76) < 10) & (x >= 150)] = FAR + 2
    made[26:34, 22:38, 30:50] = FAR + 70_000
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write(folder / "cell.zarr/labels", labels_ZYX(), CORNER, VOXEL)
    export_precomputed(
        PrecomputedOptions(folder / "cell.zarr", "labels", folder / "neurons"), num_workers=2, progress=False
    )
    return folder


def answer(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as reply:
        return reply.status, reply.read(), reply.headers


def test_the_server_hands_out_parts_of_files_to_any_page_but_no_lists(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    with serving(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert answer(f"{url}/a.bin")[1] == bytes(range(100))
        status, content, headers = answer(f"{url}/a.bin", Range="bytes=10-19")
        assert (status, content) == (206, bytes(range(10, 20)))
        assert headers["Content-Range"] == "bytes 10-19/100"
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert answer(f"{url}/a.bin", Range="bytes=90-500")[1] == bytes(range(90, 100))
        assert answer(f"{url}/a.bin", Range="bytes=95-")[1] == bytes(range(95, 100))
        for path, headers, code in (
            ("", {}, 404), ("nothing", {}, 404), ("a.bin", {"Range": "bytes=100-"}, 416),
            ("../../../etc/passwd", {}, 404),
        ):  # fmt: skip
            with pytest.raises(urllib.error.HTTPError) as caught:
                answer(f"{url}/{path}", **headers)
            assert caught.value.code == code, path
            caught.value.close()


def test_a_folder_is_told_from_others(exported, tmp_path):
    assert is_precomputed(str(exported / "neurons"))
    for content in (None, "[]", "{", '{"@type": "neuroglancer_multilod_draco"}'):
        if content is not None:
            (tmp_path / "info").write_text(content)
        assert not is_precomputed(str(tmp_path))
    (tmp_path / "info").write_text(json.dumps({"@type": "neuroglancer_multiscale_volume"}))
    with pytest.raises(DataError, match="scales"), served_precomputed([str(tmp_path)]):
        pass


def test_the_scene_knows_where_it_lies(exported):
    with served_precomputed([str(exported / "neurons")]) as volumes:
        (volume,) = volumes
        (layer,) = precomputed_layers(volumes, selected=[FAR + 1])
        assert (layer.name, layer.kind, layer.selected) == ("neurons", "segmentation", (FAR + 1,))
        assert volume.voxel_size == VOXEL
        assert tuple(volume.roi_voxels.begin) == CORNER
        assert tuple(volume.roi_voxels.shape) == (140, 150, 200)
        assert "140 × 150 × 200 voxels of 10 × 5 × 5 nm" in layer.describe()
        state = Scene([layer]).state().to_json()
        assert state["layers"][0]["source"] == [{"url": f"precomputed://{volume.url}"}]
        assert state["layers"][0]["segments"] == [str(FAR + 1)]


def test_the_command_opens_a_folder_beside_a_container(exported, monkeypatch, capsys):
    monkeypatch.setattr("incasem.viewing.session._wait", lambda interactive: None)
    command = ["view", "-f", f"{exported}/cell.zarr", "-d", "labels", "-f", f"{exported}/neurons", "-n"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "labels: segmentation" in told
    assert "neurons: segmentation, uint64, 140 × 150 × 200 voxels" in told


@in_browser
def test_the_browser_shows_the_same_as_of_our_own_volume(viewer, exported):  # noqa: F811
    position = [c + o + 0.5 for c, o in zip((70, 76, 130), CORNER, strict=True)]
    state = {"position": position, "zoom": 2}
    with served_precomputed([str(exported / "neurons")]) as volumes:
        scene = Scene(precomputed_layers(volumes), layout="xy")
        shown = draw(viewer, scene, **state)
    ours = draw(viewer, Scene(layers_of(str(exported / "cell.zarr"), "labels"), layout="xy"), **state)
    assert (ours.max(axis=2) > 60).mean() > 0.1
    assert (shown == ours).all()


@in_browser
def test_meshes_are_where_the_labels_are_at_every_level_of_detail(viewer, exported, pictures):  # noqa: F811
    layout = neuroglancer.DataPanelLayout(type="3d", orthographic_projection=True)
    label, centre = FAR + 1, CENTRES[FAR + 1]
    with served_precomputed([str(exported / "neurons")]) as volumes:
        layers = precomputed_layers(volumes, selected=[label])
        for projection_scale in (200, 1000, 4000):
            seen = draw(
                viewer, Scene(layers), position=[c + o for c, o in zip(centre, CORNER, strict=True)],
                layout=layout, show_slices=False, projection_scale=projection_scale,
            )  # fmt: skip
            rows, columns = np.nonzero(seen.max(axis=2) > 40)
            pixels = 2 * 60 / projection_scale * SIZE
            for found in (rows, columns):
                assert abs((found.min() + found.max() + 1) / 2 - SIZE / 2) <= 2, projection_scale
                assert np.ptp(found) + 1 == pytest.approx(pixels, rel=0.06, abs=3), projection_scale


@in_browser
def test_a_window_to_look_at(chromium, viewer, exported, pictures):  # noqa: F811
    with served_precomputed([str(exported / "neurons")]) as volumes:
        scene = Scene(precomputed_layers(volumes, selected=list(CENTRES)))
        with viewer.config_state.txn() as config:
            config.show_ui_controls = config.show_panel_borders = True
            config.viewer_size = None
        viewer.set_state(scene.state())
        canvas(viewer)
        picture = chromium.screenshot()
    (pictures / "precomputed.png").write_bytes(picture)
    seen = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    assert (np.ptp(seen, axis=2) > 40).mean() > 0.02
