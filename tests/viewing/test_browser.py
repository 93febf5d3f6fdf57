"""What a browser shows, pixel by pixel: places, colours, levels, surfaces.

The pictures of whole windows stay in pytest's temporary folder, or where INCASEM_SCREENSHOTS says.
"""

import functools
import http.server
import io
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("neuroglancer")

import neuroglancer
from PIL import Image

from incasem.geometry import Roi
from incasem.viewing import shaders
from incasem.viewing.comparison import Comparison, comparison_scene
from incasem.viewing.rois import load_rois, roi_scene
from incasem.viewing.scene import Scene
from incasem.viewing.session import served
from tests.viewing.chromium import MISSING, PROGRAM, Chromium
from tests.viewing.conftest import OFFSET, PREDICTED, PREDICTIONS, write
from tests.viewing.test_layers import layers_of
from tests.viewing.test_pyramid import voxels_read  # noqa: F401

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
]

SIZE = 512
ZOOM = 8
"""Pixels a voxel."""
AT = (72, 86, 108)
"""Voxel in the middle of the cell; z, y, x."""
READY_S = 240


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = Path(os.environ.get("INCASEM_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def canvas(viewer):
    """What is drawn when all data is there; RGB, integers."""
    drawn, answer = threading.Event(), []

    def take(reply):
        answer.append(reply)
        drawn.set()

    viewer.async_screenshot(take)
    assert drawn.wait(READY_S), "nothing was drawn"
    picture = Image.open(io.BytesIO(answer[0].screenshot.image)).convert("RGB")
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def viewer(chromium, cell):
    """One page for all tests, which change what it shows: starting the client takes longer than drawing."""
    with served(Scene(layers_of(cell, "volumes/raw"))) as viewer:
        chromium.open(viewer.get_viewer_url())
        yield viewer


def draw(viewer, scene, *, position=AT, zoom=ZOOM, layers=None, **state):
    """What a scene looks like in one panel of SIZE × SIZE pixels, with the position in the middle."""
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = [SIZE, SIZE]
    new = scene.state()
    new.position = position
    new.cross_section_scale = 1 / zoom
    new.show_axis_lines = False
    new.show_scale_bar = False
    for name, value in state.items():
        setattr(new, name, value)
    if layers is not None:
        new.layers.clear()
        for name, layer in layers.items():
            new.layers[name] = layer
    viewer.set_state(new)
    return canvas(viewer)


def window(array_YX, corner, zoom=ZOOM, at=AT[1:]):
    """The part of an array around a position, blown up to pixels; nan outside."""
    n = SIZE // zoom // 2
    result = np.full((2 * n, 2 * n), np.nan)
    for y in range(2 * n):
        for x in range(2 * n):
            v, u = (a - n + i - c for a, i, c in zip(at, (y, x), corner, strict=True))
            if 0 <= v < array_YX.shape[0] and 0 <= u < array_YX.shape[1]:
                result[y, x] = array_YX[v, u]
    return np.kron(result, np.ones((zoom, zoom)))


def raw_window(phantom):
    return window(phantom.raw_ZYX[AT[0] - OFFSET[0]], OFFSET[1:])


def test_each_voxel_of_the_raw_data_is_where_it_belongs(viewer, cell, phantom):
    scene = Scene(layers_of(cell, "volumes/raw"), layout="xy")
    seen = draw(viewer, scene, position=[AT[0] + 0.5, AT[1], AT[2]])
    wanted = raw_window(phantom)
    inside = ~np.isnan(wanted)
    assert inside.mean() > 0.9
    assert (seen[inside] == wanted[inside][:, None]).all()
    assert (seen[~inside] == int("1a", 16)).all()


def test_the_other_planes_show_the_axes_that_they_are_called_after(viewer, cell, phantom):
    scene = Scene(layers_of(cell, "volumes/raw"), layout="xz")
    seen = draw(viewer, scene, position=[AT[0], AT[1] + 0.5, AT[2]])
    wanted = window(phantom.raw_ZYX[:, AT[1] - OFFSET[1]], (OFFSET[0], OFFSET[2]), at=(AT[0], AT[2]))
    inside = ~np.isnan(wanted)
    assert (seen[inside] == wanted[inside][:, None]).all()


def test_labels_and_a_prediction_of_a_part_lie_over_the_raw_data(viewer, cell, phantom):
    segmentation = f"{PREDICTIONS}/predict_0001/segmentation"
    scene = Scene(layers_of(cell, "volumes/raw", segmentation), layout="xy")
    seen = draw(viewer, scene, position=[AT[0] + 0.5, AT[1], AT[2]])
    (layer,) = [layer for layer in scene.layers if layer.name == segmentation]
    volume = layer.pyramid.levels[0].volume
    label = window(
        volume.read_voxels(volume.roi_voxels)[AT[0] - OFFSET[0] - PREDICTED[0].start],
        [o + s.start for o, s in zip(OFFSET[1:], PREDICTED[1:], strict=True)],
    )
    raw = raw_window(phantom)
    assert (label == 1).sum() > 10_000
    assert np.isnan(label).any(), "the end of the prediction is in the picture"
    color = np.array([int(shaders.PALETTE[0][k : k + 2], 16) for k in (1, 3, 5)])
    coloured = seen[label == 1]
    assert np.abs(coloured - (0.6 * raw[label == 1][:, None] + 0.4 * color)).max() <= 2
    bare = ~(label == 1) & ~np.isnan(raw)
    assert (seen[bare] == raw[bare][:, None]).all()


@pytest.mark.parametrize("number", [1, 2])
def test_probabilities_of_both_types_are_as_opaque_as_they_are_high(viewer, cell, phantom, number):
    name = f"{PREDICTIONS}/predict_000{number}/prob_maps/class_1"
    scene = Scene(layers_of(cell, "volumes/raw", name), layout="xy")
    seen = draw(viewer, scene, position=[AT[0] + 0.5, AT[1], AT[2]])
    volume = scene.layers[1].pyramid.levels[0].volume
    stored = volume.read_voxels(volume.roi_voxels)[AT[0] - OFFSET[0] - PREDICTED[0].start]
    corner = [o + s.start for o, s in zip(OFFSET[1:], PREDICTED[1:], strict=True)]
    p = np.nan_to_num(window(stored / (255 if number == 1 else 1), corner))[..., None]
    raw = raw_window(phantom)
    color = np.array([int(shaders.PALETTE[0][k : k + 2], 16) for k in (1, 3, 5)])
    wanted = (1 - 0.6 * p) * raw[..., None] + 0.6 * p * color
    inside = ~np.isnan(raw)
    assert p.max() > 0.95
    assert np.abs(seen - wanted)[inside].max() <= 2


def test_a_mask_paints_what_is_left_out(viewer, cell, phantom):
    scene = Scene(layers_of(cell, "volumes/raw", "volumes/metric_masks/mito"), layout="xy")
    seen = draw(viewer, scene, position=[AT[0] + 0.5, AT[1], AT[2]])
    volume = scene.layers[1].pyramid.levels[0].volume
    zone = window(volume.read_voxels(volume.roi_voxels)[AT[0] - OFFSET[0]], OFFSET[1:]) == 0
    raw = raw_window(phantom)
    bare = ~zone & ~np.isnan(raw)
    assert (seen[bare] == raw[bare][:, None]).all()
    assert (seen[zone][:, 0] > seen[zone][:, 2] + 20).all(), "red"


def test_channels_are_colours(viewer, tmp_path):
    values = np.array([200, 100, 50], np.uint8)
    three = np.broadcast_to(values[:, None, None, None], (3, 64, 64, 64))
    write(tmp_path / "a.zarr/colours", three, (0, 0, 0))
    write(tmp_path / "a.zarr/grey", three[0], (0, 0, 0))
    write(tmp_path / "a.zarr/many", np.repeat(three, 2, axis=0)[::-1], (0, 0, 0))
    for name, word, wanted in (
        ("colours", None, [200, 100, 50]),
        ("colours[1:]", None, [100, 50, 0]),
        ("colours[2]", None, [50, 50, 50]),
        ("grey", "rgb", [200, 200, 200]),
        ("many", None, [50, 50, 50]),
    ):
        layers = layers_of(str(tmp_path / "a.zarr"), name, shader_words=[word])
        seen = draw(viewer, Scene(layers, layout="xy"), position=[32.5, 32, 32])
        assert seen[SIZE // 2, SIZE // 2].tolist() == wanted, name


def test_the_level_that_fits_the_zoom_is_shown(viewer, tmp_path):
    for level, value in enumerate((50, 100, 200)):
        shape = [32 >> level, 512 >> level, 512 >> level]
        data = np.full(shape, value, np.uint8)
        write(tmp_path / f"a.zarr/raw/s{level}", data, (0, 0, 0), (5 << level,) * 3)
    scene = Scene(layers_of(str(tmp_path / "a.zarr"), "raw"), layout="xy")
    for pixels, value in ((4, 50), (0.5, 100), (0.25, 200)):
        seen = draw(viewer, scene, position=[16.5, 256, 256], zoom=pixels)
        middle = SIZE // 2
        assert seen[middle, middle].tolist() == [value] * 3
        edge = np.flatnonzero(seen[middle, :, 0] == value)
        width = min(SIZE, 512 * pixels)
        assert abs(len(edge) - width) <= 1


def test_terabytes_are_on_the_screen_at_once(viewer, tmp_path, voxels_read):  # noqa: F811
    from incasem.volumes import create_volume

    volume = create_volume(
        tmp_path / "huge.zarr/raw",
        shape=(20_000,) * 3,
        dtype="uint8",
        voxel_size=(4, 4, 4),
        chunk_shape=(128,) * 3,
    )
    corner = (10_000 // 128 * 128,) * 3
    volume.write_voxels(Roi(corner, (128,) * 3), np.full((128,) * 3, 200, np.uint8))
    began = time.monotonic()
    viewer.set_state(Scene(layers_of(str(tmp_path / "huge.zarr"), "raw")).state())
    seen = canvas(viewer)
    assert (seen == 200).all(axis=2).sum() > 10_000
    assert time.monotonic() - began < READY_S / 2
    assert sum(voxels_read) < 1e9, "of 8e12"


def test_the_surface_of_a_selected_label_is_where_the_label_is(viewer, tmp_path):
    labels = np.zeros((64, 64, 64), np.uint32)
    labels[20:30, 30:50, 10:50] = 3
    write(tmp_path / "a.zarr/labels", labels, OFFSET)
    scene = Scene(layers_of(str(tmp_path / "a.zarr"), "labels", selected=(3,)))
    layout = neuroglancer.DataPanelLayout(type="3d", orthographic_projection=True)
    middle = [o + c for o, c in zip(OFFSET, (25, 40, 30), strict=True)]
    seen = draw(viewer, scene, position=middle, layout=layout, show_slices=False, projection_scale=128)
    rows, columns = np.nonzero(seen.max(axis=2) > 40)
    assert abs((rows.min() + rows.max()) / 2 - SIZE / 2) <= 3
    assert abs((columns.min() + columns.max()) / 2 - SIZE / 2) <= 3
    assert (columns.max() - columns.min()) / (rows.max() - rows.min()) == pytest.approx(2, rel=0.1)


class _Files(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_our_ome_ngff_opens_over_http_half_a_voxel_from_our_corner(viewer, tmp_path, phantom, zarr_format):
    """NGFF states centres, so a viewer of NGFF has the same voxel half a voxel towards the origin."""
    write(tmp_path / "cell.zarr/raw", phantom.raw_ZYX, OFFSET, zarr_format=zarr_format)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Files, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        scene = Scene(layers_of(str(tmp_path / "cell.zarr"), "raw"), layout="xy")
        ngff = neuroglancer.ImageLayer(
            source=f"zarr://http://127.0.0.1:{server.server_port}/cell.zarr/",
            shader=shaders.GREY, shader_controls={"contrast": {"range": [0, 255]}}, opacity=1,
        )  # fmt: skip
        seen = draw(viewer, scene, position=[AT[0], AT[1] - 0.5, AT[2] - 0.5], layers={"ngff": ngff})
    finally:
        server.shutdown()
        server.server_close()
    wanted = raw_window(phantom)
    inside = ~np.isnan(wanted)
    assert (seen[inside] == wanted[inside][:, None]).all()


def test_windows_to_look_at(chromium, viewer, pictures, cell, tmp_path):
    """The whole window of each command; someone looks at these."""
    config = {
        name: {
            "file": Path(cell).name, "voxel_size": [5, 5, 5], "raw": "volumes/raw",
            "labels": {"volumes/labels/mito": 1}, "offset": offset, "shape": [20, 20, 30],
        }
        for name, offset in {"training": [60, 60, 70], "validation": [60, 95, 90]}.items()
    }  # fmt: skip
    (tmp_path / "rois.json").write_text(json.dumps(config))
    everything = layers_of(
        cell, "volumes/raw", "volumes/labels/mito", "volumes/metric_masks",
        f"{PREDICTIONS}/predict_0001/prob_maps", selected=(1, 2, 3),
    )  # fmt: skip
    comparison = Comparison(cell, "volumes/raw", ["volumes/labels/mito"], cell)
    in_a_row = [f"train_0001/predict_000{n}" for n in (1, 2)]
    scenes = {
        "view": Scene(everything, focus_nm=everything[0].roi_nm),
        "view_rois": roi_scene(load_rois([tmp_path / "rois.json"], Path(cell).parent), 10),
        "compare_predictions": comparison_scene(replace(comparison, series=["train_0001/predict_0003"])),
        "compare_in_a_row": comparison_scene(replace(comparison, series=in_a_row)),
    }
    with viewer.config_state.txn() as config:
        config.show_ui_controls = config.show_panel_borders = True
        config.viewer_size = None
    for name, scene in scenes.items():
        viewer.set_state(scene.state())
        canvas(viewer)
        time.sleep(1)
        picture = chromium.screenshot()
        (pictures / f"{name}.png").write_bytes(picture)
        seen = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        assert seen.shape[:2] == (1000, 1600)
        grey = (np.ptp(seen, axis=2) == 0) & (seen[..., 0] > 60)
        coloured = np.ptp(seen, axis=2) > 40
        assert grey.mean() > 0.1, name
        assert coloured.mean() > 0.005, name
