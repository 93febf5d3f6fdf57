import sys

import cloudpickle
import pytest

from incasem.blockwise import Grid, Job, is_finished, run_stage, run_together
from incasem.errors import DataError, FailedBlocksError
from incasem.geometry import Coordinate, Roi

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Folder:
    """An output with attributes, as a Volume or a folder of images has them."""

    def __init__(self, path):
        self.path = str(path)
        self.attributes = {"resolution": [5, 5, 5]}
        self.made = 1

    def set_attributes(self, **attributes):
        self.attributes.update(attributes)

    def fingerprint(self):
        return {"path": self.path, "made": self.made}


class Count:
    def __init__(self, path, fail=None):
        self.path, self.fail = path, fail

    def __call__(self):
        def count(block):
            if block.index == self.fail:
                raise ValueError("this block is bad")
            with self.path.open("a") as file:
                file.write(f"{block.index}\n")

        return count


def make_job(folder, identity=None, shape=(6, 4, 4), fail=None, name="count"):
    grid = Grid(Roi((0, 0, 0), shape), Coordinate((2, 4, 4)), Coordinate((0, 0, 0)))
    identity = {"clip_limit": 0.02, "raw": {"mtime": 1}} if identity is None else identity
    return Job(name, grid, Count(folder / "blocks", fail), identity, folder / "out" / ".incasem")


def test_a_finished_stage_is_marked_cleaned_and_not_done_again(tmp_path):
    output, job = Folder(tmp_path / "out"), make_job(tmp_path)
    assert not is_finished(job, output)
    report = run_stage(job, output, 2, progress=False)
    assert (report.blocks_done, report.already_complete) == (3, False)
    assert output.attributes["incasem"]["job"] == "count"
    assert output.attributes["incasem"]["identity"] == {"clip_limit": 0.02, "raw": {"mtime": 1}}
    assert output.attributes["resolution"] == [5, 5, 5]
    assert not job.state_dir.exists()
    assert is_finished(job, output)
    report = run_stage(job, output, 2, progress=False)
    assert report.already_complete
    assert report.summary() == "count: already complete, nothing to do"
    assert len((tmp_path / "blocks").read_text().split()) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"identity": {"clip_limit": 0.03, "raw": {"mtime": 1}}}, "clip_limit: was 0.02, is now 0.03"),
        ({"identity": {"clip_limit": 0.02, "raw": {"mtime": 2}}}, "raw.mtime: was 1, is now 2"),
        ({"identity": {"clip_limit": 0.02}}, 'raw: was {"mtime": 1}, is now null'),
        ({"shape": (8, 4, 4)}, r"region.shape: was \[6, 4, 4\], is now \[8, 4, 4\]"),
        ({"name": "other"}, "written by another job: count, and this one is other"),
    ],
)
def test_a_finished_output_of_another_identity_is_left_alone(tmp_path, change, words):
    output = Folder(tmp_path / "out")
    run_stage(make_job(tmp_path), output, 1, progress=False)
    mark = dict(output.attributes["incasem"])
    with pytest.raises(DataError, match=words) as info:
        run_stage(make_job(tmp_path, **change), output, 1, progress=False)
    assert "Choose another output name" in str(info.value)
    assert output.path in str(info.value)
    assert output.attributes["incasem"] == mark
    assert len((tmp_path / "blocks").read_text().split()) == 3


def test_a_failed_stage_is_not_marked_and_goes_on(tmp_path):
    output = Folder(tmp_path / "out")
    with pytest.raises(FailedBlocksError, match="this block is bad"):
        run_stage(make_job(tmp_path, fail=1), output, 1, progress=False)
    assert "incasem" not in output.attributes
    report = run_stage(make_job(tmp_path), output, 1, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (1, 2)
    assert sorted((tmp_path / "blocks").read_text().split()) == ["0", "1", "2"]


def test_what_a_kill_between_mark_and_cleaning_left_is_cleaned(tmp_path):
    output, job = Folder(tmp_path / "out"), make_job(tmp_path)
    run_stage(job, output, 1, progress=False)
    job.state_dir.mkdir(parents=True)
    run_stage(job, output, 1, progress=False)
    assert not job.state_dir.exists()


def test_an_identity_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        run_stage(make_job(tmp_path, {"x": float("nan")}), Folder(tmp_path / "out"), 1, progress=False)


def two_parts(folder, **identity):
    jobs = [make_job(folder / name, {"name": name} | identity) for name in ("one", "other")]
    return [(job, Folder(job.state_dir.parent)) for job in jobs]


def blocks_of(folder):
    return sorted((folder / "blocks").read_text().split())


def test_one_pass_fills_two_outputs_and_each_is_the_result_of_its_own_job(tmp_path):
    parts = two_parts(tmp_path)
    report = run_together("both", parts, Count(tmp_path / "blocks"), 2, progress=False)
    assert (report.name, report.blocks_done) == ("both", 3)
    assert blocks_of(tmp_path) == ["0", "1", "2"]
    for job, output in parts:
        assert is_finished(job, output)
        assert output.attributes["incasem"]["identity"] == job.identity
        assert not job.state_dir.exists()


def test_a_failed_pass_over_two_outputs_goes_on(tmp_path):
    parts = two_parts(tmp_path)
    with pytest.raises(FailedBlocksError, match="this block is bad"):
        run_together("both", parts, Count(tmp_path / "blocks", fail=1), 1, progress=False)
    assert not any(is_finished(job, output) for job, output in parts)
    report = run_together("both", parts, Count(tmp_path / "blocks"), 1, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (1, 2)
    assert blocks_of(tmp_path) == ["0", "1", "2"]


@pytest.mark.parametrize("changed", [0, 1])
def test_the_marks_of_two_outputs_do_not_count_for_others(tmp_path, changed):
    """One of them was deleted and made again, empty, or is left out: what was done holds no more."""
    parts = two_parts(tmp_path)
    with pytest.raises(FailedBlocksError, match="this block is bad"):
        run_together("both", parts, Count(tmp_path / "blocks", fail=1), 1, progress=False)
    parts[changed][1].made += 1
    assert run_together("both", parts, Count(tmp_path / "blocks"), 1, progress=False).blocks_done == 3
    with pytest.raises(FailedBlocksError, match="this block is bad"):
        run_together("both", two_parts(tmp_path), Count(tmp_path / "blocks", fail=1), 1, progress=False)
    alone = two_parts(tmp_path)[:1]
    assert run_together("one", alone, Count(tmp_path / "blocks"), 1, progress=False).blocks_done == 3


def test_outputs_begun_with_other_settings_are_left_alone(tmp_path):
    with pytest.raises(FailedBlocksError, match="this block is bad"):
        run_together("both", two_parts(tmp_path), Count(tmp_path / "blocks", fail=1), 1, progress=False)
    first, second = two_parts(tmp_path)[0], two_parts(tmp_path, dust=9)[1]
    with pytest.raises(
        DataError, match=r"other/out was begun with other settings:\n  dust: was null, is now 9"
    ):
        run_together("both", [first, second], Count(tmp_path / "blocks"), 1, progress=False)
    assert blocks_of(tmp_path) == ["0", "2"]
