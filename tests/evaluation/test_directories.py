"""Where reports go."""

from pathlib import Path

from incasem.evaluation.directories import report_directory


def test_a_report_lies_beside_the_container_and_says_what_was_compared(tmp_path):
    group = "volumes/predictions/train_0001/predict_0001"
    scored = str(tmp_path / "cell_6.zarr" / group / "prob_maps/class_1")
    name = "cell_6_train_0001_predict_0001_prob_maps_class_1_vs_er"
    assert report_directory(None, scored, "x.zarr/volumes/labels/er") == tmp_path / "evaluations" / name


def test_a_report_goes_where_the_user_says(tmp_path):
    assert report_directory(tmp_path / "mine", "a.zarr/b", "c.zarr/d") == tmp_path / "mine"
    assert report_directory(Path("~/mine"), "a.zarr/b", "c.zarr/d") == Path.home() / "mine"
