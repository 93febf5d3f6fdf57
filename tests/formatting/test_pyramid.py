"""Pyramids: exact, in the right place, valid for others, and never at the cost of the data."""

import itertools
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import is_finished, run_in_process
from incasem.cli import main
from incasem.errors import ConfigError, DataError
from incasem.formatting import (
    ExportOptions,
    MetricMaskOptions,
    PyramidOptions,
    _downscale,
    export,
    make_pyramid,
    metric_mask,
    pyramid,
)
from incasem.geometry import Roi
from incasem.volumes import create_volume, exists, list_datasets, open_volume

RNG = np.random.default_rng(0)


def make(
    tmp_path, array, dataset="volumes/raw", suffix=".zarr", offset=(3, 1, 2), chunks=(8, 8, 8), **kwargs
):
    voxel_size = (8, 4, 4)
    volume = create_volume(
        tmp_path / f"cell{suffix}" / dataset, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size,
        offset_nm=tuple(o * v for o, v in zip(offset, voxel_size, strict=True)), chunk_shape=chunks, **kwargs,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return array


def grey(shape=(13, 14, 15)):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def options(tmp_path, dataset="volumes/raw", scales=((1, 2, 2), (2, 2, 2)), **kwargs):
    return PyramidOptions(tmp_path / "cell.zarr", dataset, scales, **kwargs)


@pytest.fixture
def in_process(monkeypatch):
    """Stages run here instead of in workers, which take seconds to start; marks and all."""

    def run_stage(job, output, num_workers, progress):
        if not is_finished(job, output):
            run_in_process(job)
            output.set_attributes(
                incasem={"job": job.name, "identity": json.loads(json.dumps(job.identity)), "region": {
                    "begin": list(job.grid.total_roi.begin), "shape": list(job.grid.total_roi.shape)}}
            )  # fmt: skip

    monkeypatch.setattr(pyramid, "run_stage", run_stage)


def expected(fine, begin, factor, method):
    """Window by window: the coarser level and where it begins."""
    first = [b // f for b, f in zip(begin, factor, strict=True)]
    last = [-(-(b + s) // f) for b, s, f in zip(begin, fine.shape, factor, strict=True)]
    out = np.zeros([e - b for b, e in zip(first, last, strict=True)], fine.dtype)
    for index in itertools.product(*(range(s) for s in out.shape)):
        window = fine[
            tuple(
                slice(max(0, (i + a) * f - b), max(0, (i + a + 1) * f - b))
                for i, a, f, b in zip(index, first, factor, begin, strict=True)
            )
        ]
        if method == "stride":
            out[index] = window.ravel()[0]
        elif method == "mean":
            out[index] = np.floor(window.astype(float).mean() + 0.5)
        else:
            values, counts = np.unique(window, return_counts=True)
            top = values[counts == counts.max()]
            out[index] = top[top != 0].min() if (top != 0).any() else 0
    return out, first


@settings(max_examples=12)
@given(data=st.data())
def test_any_blocks_give_the_windows_of_the_absolute_grid(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("pyramid")
    method = data.draw(st.sampled_from(["mean", "stride", "majority"]))
    begin = data.draw(st.tuples(*[st.integers(-5, 7)] * 3))
    shape = data.draw(st.tuples(*[st.integers(1, 17)] * 3))
    scales = data.draw(
        st.lists(st.tuples(*[st.integers(1, 3)] * 3).filter(lambda f: max(f) > 1), min_size=1, max_size=2)
    )
    fine = RNG.integers(0, 4, shape).astype(data.draw(st.sampled_from([np.uint8, np.uint32])))
    make(tmp_path, fine, offset=begin, chunks=(4, 4, 4))
    opts = options(tmp_path, scales=scales, method=method)
    plan = pyramid._plan(opts, tmp_path / "cell.zarr/volumes/raw", tmp_path / "cell.zarr", "volumes/raw")
    pyramid._drop_other_levels(plan)
    for k, factor in enumerate(scales):
        block = tuple(4 * data.draw(st.integers(1, 4)) for _ in range(3))
        job, level = pyramid.prepare_level(plan, k, block)
        run_in_process(job)
        fine, begin = expected(fine, begin, factor, method)
        assert tuple(level.roi_voxels.begin) == tuple(begin)
        np.testing.assert_array_equal(level.read_voxels(level.roi_voxels), fine)


def test_floats_and_channels_have_means():
    fine = RNG.random((2, 4, 4, 4)).astype(np.float32)
    merged = _downscale.merge_windows(fine, [(0, 0)] * 3, (2, 2, 2), "mean")
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged[1, 0, 1, 0], fine[1, :2, 2:, :2].mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"zarr_format": 2}, {"zarr_format": 3}, {"zarr_format": 3, "shard_shape": (16, 16, 16)}]
)
def test_the_public_validator_accepts_it_and_the_place_is_right(tmp_path, in_process, reader, arguments):
    raw = make(tmp_path, grey(), **arguments)
    make(tmp_path, grey(), "volumes/mask", **arguments)
    make(tmp_path, grey().astype(np.uint32), "volumes/labels/er", **arguments)
    for dataset in ("volumes/raw", "volumes/labels/er"):
        make_pyramid(options(tmp_path, dataset), num_workers=1)
    for group in ("volumes", "volumes/raw", "volumes/labels", "volumes/labels/er"):
        assert "Valid OME-Zarr" in reader("ome-zarr-models", "validate", tmp_path / "cell.zarr" / group)
    group = tmp_path / "cell.zarr/volumes/raw"
    (image,) = _ngff(group)["multiscales"]
    shown = [
        [t[k] for t, k in zip(d["coordinateTransformations"], ("scale", "translation"), strict=True)]
        for d in image["datasets"]
    ]
    # s0 begins at voxel 3, 1, 2; s1 at 3, 0, 1 of its own voxels; s2 at 1, 0, 0. Plus half the difference.
    assert shown == [
        [[8, 4, 4], [24, 4, 8]],
        [[8, 8, 8], [24, 0 + 2, 8 + 2]],
        [[16, 16, 16], [16 + 4, 0 + 6, 0 + 6]],
    ]
    assert image["type"] == "mean"
    assert [i["name"] for i in _ngff(group.parent)["multiscales"]] == ["mask", "raw"]
    er = _ngff(tmp_path / "cell.zarr/volumes/labels/er")
    assert er["image-label"]["source"] == {"image": "../../raw"}
    assert er["multiscales"][0]["type"] == "stride"
    assert _ngff(tmp_path / "cell.zarr/volumes/labels")["labels"] == ["er"]
    np.testing.assert_array_equal(open_volume(group).read_voxels(Roi((3, 1, 2), raw.shape)), raw)
    level = open_volume(group / "s1")
    assert level.write_shape == arguments.get("shard_shape", (8, 8, 8))


def _ngff(group):
    if (group / "zarr.json").exists():
        return json.loads((group / "zarr.json").read_text())["attributes"]["ome"]
    return json.loads((group / ".zattrs").read_text())


def test_levels_told_by_the_group_alone_are_in_the_right_place(tmp_path, in_process):
    make(tmp_path, grey((9, 9, 9)), offset=(1, 4, 2))
    make_pyramid(options(tmp_path, scales=[(3, 3, 3), (2, 2, 2)]), num_workers=1)
    group = tmp_path / "cell.zarr/volumes/raw"
    stated = [open_volume(group / f"s{k}").roi for k in range(3)]
    for k in range(3):
        (group / f"s{k}/.zattrs").unlink()
    assert [open_volume(group / f"s{k}").roi for k in range(3)] == stated


def test_by_workers_and_the_command_line(tmp_path, capsys):
    raw = make(tmp_path, grey((16, 16, 16)), offset=(0, 0, 0))
    words = ["-f", str(tmp_path / "cell.zarr"), "-d", "volumes/raw", "-n", "2"]
    assert main(["pyramid", *words, "-s", "2"]) == 0
    level = open_volume(tmp_path / "cell.zarr/volumes/raw/s1")
    means = raw.reshape(8, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5))
    np.testing.assert_array_equal(level.read_voxels(level.roi_voxels), np.floor(means + 0.5))
    assert main(["pyramid", *words, "-s", "2"]) == 0
    assert "already complete" in capsys.readouterr().out


def test_the_dataset_keeps_its_name_in_other_commands(tmp_path, in_process):
    labels = make(tmp_path, (grey() > 200).astype(np.uint32), "volumes/labels/er")
    zone = MetricMaskOptions(tmp_path / "cell.zarr", "volumes/labels/er", "volumes/zone", (8, 8, 8), 1, 1)
    before = metric_mask.prepare_metric_mask(zone)[0].identity
    make_pyramid(options(tmp_path, "volumes/labels/er"), num_workers=1)
    assert metric_mask.prepare_metric_mask(zone)[0].identity == before
    job, images = export.prepare_export(
        ExportOptions(tmp_path / "cell.zarr", "volumes/labels/er", tmp_path / "out")
    )
    run_in_process(job)
    assert not images.missing(labels.shape[0])
    assert exists(tmp_path / "cell.zarr/volumes/labels/er")
    assert list_datasets(tmp_path / "cell.zarr") == [
        "volumes/labels/er/s0", "volumes/labels/er/s1", "volumes/labels/er/s2", "volumes/zone"
    ]  # fmt: skip
    with pytest.raises(DataError, match="exists"):
        make(tmp_path, labels, "volumes/labels/er")
    # The group above lists the image's levels, but is no image itself.
    assert not exists(tmp_path / "cell.zarr/volumes/labels")


def test_outputs_of_a_job_that_got_levels_are_resumed(tmp_path, in_process):
    array = make(tmp_path, grey())
    make_pyramid(options(tmp_path), num_workers=1)
    same = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=array.shape, dtype=array.dtype, voxel_size=(8, 4, 4),
        offset_nm=(24, 4, 8), chunk_shape=(8, 8, 8), existing="resume",
    )  # fmt: skip
    np.testing.assert_array_equal(same.read_voxels(same.roi_voxels), array)
    (volumes,) = _ngff(tmp_path / "cell.zarr/volumes")["multiscales"]
    assert [d["path"] for d in volumes["datasets"]] == ["raw/s0", "raw/s1", "raw/s2"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(1, 9))
def test_a_kill_at_any_rename_or_level_loses_nothing(tmp_path, in_process, monkeypatch, moment):
    """Killed before or after each rename and each level; the same command ends it."""
    array = make(tmp_path, grey())
    steps = itertools.count(1)

    def killing(function):
        def wrapped(*args, **kwargs):
            if next(steps) == moment:
                raise Killed
            result = function(*args, **kwargs)
            if next(steps) == moment:
                raise Killed
            return result

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(pyramid, "run_stage", killing(pyramid.run_stage))
        patch.setattr(pyramid.os, "rename", killing(os.rename))
        with pytest.raises(Killed):
            make_pyramid(options(tmp_path), num_workers=1)
    holders = [tmp_path / "cell.zarr/volumes" / name for name in ("raw", ".raw.pyramid/s0")]
    assert sum(exists(path) for path in holders) == 1
    np.testing.assert_array_equal(
        next(open_volume(p) for p in holders if exists(p)).read_voxels(Roi((3, 1, 2), array.shape)), array
    )
    if moment == 6:  # between the two renames: other commands say what to do
        with pytest.raises(DataError, match="Run the same `incasem pyramid` command again"):
            open_volume(tmp_path / "cell.zarr/volumes/raw")
    make_pyramid(options(tmp_path), num_workers=1)
    np.testing.assert_array_equal(
        open_volume(tmp_path / "cell.zarr/volumes/raw/s0").read_voxels(Roi((3, 1, 2), array.shape)), array
    )
    assert sorted(p.name for p in (tmp_path / "cell.zarr/volumes").iterdir()) == [".zattrs", ".zgroup", "raw"]
    assert [d["path"] for d in _ngff(tmp_path / "cell.zarr/volumes/raw")["multiscales"][0]["datasets"]] == [
        "s0", "s1", "s2"
    ]  # fmt: skip


def test_further_levels_and_other_settings(tmp_path, in_process):
    make(tmp_path, grey())
    make_pyramid(options(tmp_path, scales=[(2, 2, 2)]), num_workers=1)
    made = os.stat(tmp_path / "cell.zarr/volumes/raw/s1/.zarray").st_mtime_ns
    make_pyramid(options(tmp_path, "volumes/raw/s0", scales=[(2, 2, 2), (2, 2, 2)]), num_workers=1)
    group = tmp_path / "cell.zarr/volumes/raw"
    assert [d["path"] for d in _ngff(group)["multiscales"][0]["datasets"]] == ["s0", "s1", "s2"]
    assert os.stat(group / "s1/.zarray").st_mtime_ns == made
    with pytest.raises(DataError, match=r"exists and differs|other settings"):
        make_pyramid(options(tmp_path, scales=[(1, 2, 2)]), num_workers=1)


@pytest.mark.parametrize(
    ("scales", "kwargs", "error", "message"),
    [
        ([], {}, ConfigError, "scales is empty"),
        ([(1, 1, 1)], {}, ConfigError, "scales is 1,1,1"),
        ([(0, 2, 2)], {}, ConfigError, "scales is 0,2,2"),
        ([(2, 2, 2)], {"chunk_shape": (8, 0, 8)}, ConfigError, "chunk_shape"),
        ([(2, 2, 2)], {"dataset": "volumes/row"}, DataError, r"'volumes/row' is not in .* Did you mean"),
        ([(2, 2, 2)], {"dataset": ""}, DataError, "the container .* itself"),
    ],
)
def test_bad_options(tmp_path, scales, kwargs, error, message):
    make(tmp_path, grey())
    with pytest.raises(error, match=message):
        make_pyramid(options(tmp_path, scales=scales, **kwargs), num_workers=1)
    assert [p.name for p in (tmp_path / "cell.zarr/volumes").iterdir() if not p.name.startswith(".z")] == [
        "raw"
    ]


def test_labels_have_no_mean_and_masks_stay_masks(tmp_path, in_process):
    make(tmp_path, grey().astype(np.uint64), "volumes/labels/er")
    with pytest.raises(ConfigError, match="mean of uint64"):
        make_pyramid(options(tmp_path, "volumes/labels/er", method="mean"), num_workers=1)
    make(tmp_path, (grey() > 99).astype(np.uint8) * 255, "volumes/metric_masks/er")
    make_pyramid(options(tmp_path, "volumes/metric_masks/er"), num_workers=1)
    level = open_volume(tmp_path / "cell.zarr/volumes/metric_masks/er/s2")
    assert set(np.unique(level.read_voxels(level.roi_voxels))) == {0, 255}


def test_other_formats_unfinished_data_and_levels_of_others_are_refused(tmp_path, in_process):
    make(tmp_path, grey(), suffix=".n5")
    with pytest.raises(DataError, match="is n5; allowed: Zarr"):
        make_pyramid(PyramidOptions(tmp_path / "cell.n5", "volumes/raw", [(2, 2, 2)]), num_workers=1)
    make(tmp_path, grey(), "volumes/begun", attributes={"incasem": {"begun_by": "equalize"}})
    with pytest.raises(DataError, match="not finished"):
        make_pyramid(options(tmp_path, "volumes/begun"), num_workers=1)
    for level in range(2):
        make(tmp_path, grey(), f"volumes/theirs/s{level}")
    with pytest.raises(DataError, match="not made by incasem"):
        make_pyramid(options(tmp_path, "volumes/theirs", scales=[(2, 2, 2)]), num_workers=1)


def test_a_new_dataset_in_the_place_of_an_interrupted_one_is_not_overwritten(
    tmp_path, in_process, monkeypatch
):
    array = make(tmp_path, grey())
    with monkeypatch.context() as patch:
        patch.setattr(pyramid, "_end_swap", lambda group: None)
        make_pyramid(options(tmp_path), num_workers=1)
    held = tmp_path / "cell.zarr/volumes/.raw.pyramid/s0"
    assert exists(held)
    make(tmp_path, grey())
    with pytest.raises(DataError, match="Move one of the two away"):
        make_pyramid(options(tmp_path), num_workers=1)
    np.testing.assert_array_equal(open_volume(held).read_voxels(Roi((3, 1, 2), array.shape)), array)
