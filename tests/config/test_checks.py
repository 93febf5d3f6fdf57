"""Settings that contradict one another."""

from pathlib import Path

import pytest

from incasem.config import (
    DataEntry,
    check_classes,
    check_network_sizes,
    check_prediction_data,
    check_training_data,
    check_voxel_sizes,
    load_prediction_config,
    load_training_config,
)
from incasem.config.sections import NetworkSizes
from incasem.errors import ConfigError, DataError


def entry(nickname="cell", *, labels=1, voxel_size=(5, 5, 5)):
    datasets = {f"volumes/labels/{i}": i for i in range(1, labels + 1)}
    return DataEntry(nickname, Path("/x.zarr"), voxel_size, None, None, "volumes/raw", datasets)


def test_agreeing_settings_pass():
    config = load_training_config(
        None, ["data.num_classes=3", "model.num_fmaps_out=3", "loss.weight=[1, 2, 2]"]
    )
    check_training_data(config, [entry(labels=2), entry(labels=0)], [entry(labels=2)])
    check_prediction_data(load_prediction_config(None), [entry(labels=0), entry(labels=1)])


@pytest.mark.parametrize(
    "overrides",
    [["data.num_classes=3"], ["model.num_fmaps_out=3"], ["loss.weight=[1, 1, 1]"]],
)
def test_numbers_of_classes_must_agree(overrides):
    config = load_training_config(None, overrides)
    with pytest.raises(ConfigError) as caught:
        check_classes(config)
    for part in ("data.num_classes =", "model.num_fmaps_out =", "len(loss.weight) =", "3", "2"):
        assert part in str(caught.value)


def test_the_message_is_a_command_line_that_works():
    with pytest.raises(ConfigError) as caught:
        check_classes(load_training_config(None, ["data.num_classes=3"]))
    words = str(caught.value).rpartition("set ")[2].rstrip(".").replace("'", "")
    check_classes(load_training_config(None, words.split(" ", 2)))


def test_entries_must_have_as_many_labels_as_classes():
    with pytest.raises(ConfigError, match=r"b\.labels is 2 dataset\(s\); allowed: 1.*data.num_classes=3"):
        check_classes(load_training_config(None), [entry("a"), entry("b", labels=2)])
    with pytest.raises(ConfigError, match="2 entries do not fit"):
        check_classes(load_prediction_config(None), [entry("a", labels=3), entry("b", labels=2)])


def test_voxel_sizes_must_be_those_of_the_network():
    entries = [entry("a"), entry("b", voxel_size=(4, 4, 4)), entry("c", voxel_size=(5.9, 5, 5))]
    with pytest.raises(ConfigError) as caught:
        check_voxel_sizes(entries, (5, 5, 5))
    text = str(caught.value)
    assert "b.voxel_size is [4, 4, 4] nm; allowed: [5, 5, 5] nm" in text
    assert "data.voxel_size='[5.9, 5, 5]'" in text
    assert "- a.voxel_size" not in text
    check_voxel_sizes([entry(voxel_size=(5.9, 5.9, 40))], (5.9, 5.9, 40.0))


def test_a_training_without_labels_is_refused():
    with pytest.raises(ConfigError, match="labels of the training data"):
        check_training_data(load_training_config(None), [entry(labels=0)], [])


def test_a_training_without_entries_is_refused():
    with pytest.raises(ConfigError, match=r"training\.data is not set; allowed: a data configuration"):
        check_training_data(load_training_config(None), [], [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.voxel_size=[4,4,4]", r"a\.voxel_size is \[5, 5, 5\] nm"),
        ("data.num_classes=3", "numbers of classes disagree"),
        ("data.downsample_factor=2", r"data\.downsample_factor is 2; allowed: 1"),
    ],
)
def test_a_training_with_settings_that_disagree_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check_training_data(load_training_config(None, [override]), [entry("a")], [])


def published_output(shape):
    if any((s - 100) % 8 or s < 100 for s in shape):
        raise DataError("no legal input")
    return [s - 94 for s in shape]


def published_input(shape):
    return [s + 94 + (-(s - 6)) % 8 for s in shape]


def sizes(size_in, size_out=(110,) * 3):
    return NetworkSizes(input_size_voxels=size_in, output_size_voxels=size_out)


def test_sizes_of_the_network():
    published = (published_output, published_input)
    check_network_sizes("training", sizes((204,) * 3), *published)
    with pytest.raises(ConfigError) as caught:
        check_network_sizes("training", sizes((204,) * 3, (100, 110, 110)), *published)
    text = str(caught.value)
    assert "an output of [110, 110, 110]" in text
    assert (
        "training.input_size_voxels='[196, 204, 204]' training.output_size_voxels='[102, 110, 110]'" in text
    )
    with pytest.raises(ConfigError, match="cannot take"):
        check_network_sizes("validation", sizes((200,) * 3), *published)


def test_sizes_that_nobody_chose():
    assert NetworkSizes().are_default
    assert not sizes((204,) * 3, (100,) * 3).are_default
