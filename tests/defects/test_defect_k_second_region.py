"""K: the second of two regions in one file was clipped to the array that the first one had made."""

from tests.defects.conftest import entry, predict, read

REGIONS = {
    "small": entry(offset=[4, 4, 4], shape=[20, 20, 20]),
    "large": entry(offset=[0, 8, 16], shape=[48, 40, 80]),
}


def test_both_regions_are_there_and_whole(home):
    assert predict(home, REGIONS) == 0
    found = sorted((home / "cell.zarr/volumes/predictions").rglob("prob_maps/class_1"))
    shapes = {read(path).shape: read(path).min() for path in found}
    assert set(shapes) == {(20, 20, 20), (48, 40, 80)}
    assert min(shapes.values()) > 0
