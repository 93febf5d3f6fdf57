"""The settings of the augmentation: off by default, and errors that say what is allowed."""

import pytest

from incasem.config import TrainingConfig, load_training_config
from incasem.errors import ConfigError

OPTIONAL = (
    "rotation", "scaling", "shifted_sections", "gamma", "contrast", "low_contrast_sections", "blur", "noise",
    "shot_noise", "missing_sections", "cutout", "misalignment", "motion_blur",
)  # fmt: skip


def test_every_optional_kind_is_off_until_its_probability_is_set():
    augmentation = TrainingConfig().training.augmentation
    assert set(type(augmentation).model_fields) == {*OPTIONAL, "device", "elastic", "intensity", "simple"}
    assert [getattr(augmentation, kind).probability for kind in OPTIONAL] == [0] * len(OPTIONAL)
    config = load_training_config(
        None, [f"training.augmentation.{kind}.probability=0.5" for kind in OPTIONAL]
    )
    assert [getattr(config.training.augmentation, kind).probability for kind in OPTIONAL] == [0.5] * 13


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ("noise.sigma=[0.2,0.1]", "two numbers above 0, the lowest and the highest"),
        ("noise.sigma=0.1", "two numbers above 0"),
        ("cutout.boxes=[0,2]", "two whole numbers of at least 1"),
        ("cutout.largest=[4,32,32]", "of at least `smallest`, [8, 8, 8]"),
        ("contrast.brightness=[-2,0]", "two numbers of -1 to 1"),
        ("low_contrast_sections.factor=[0,1.5]", "two numbers of 0 to 1"),
        ("rotation.degrees_z=[nan,1]", "two numbers, the lowest and the highest"),
        ("scaling.factor=[0.01,1]", "two numbers of 0.25 to 4"),
        ("missing_sections.axis=3", "at most 2"),
        ("missing_sections.fill=white", "'black', 'mean' or 'repeat'"),
        ("blur.axes=[]", "at least one"),
        ("gamma.probability=1.1", "of at most 1"),
        ("misalignment.max_voxels=0", "a whole number of at least 1"),
        ("motion_blur.reach=[0,5]", "two whole numbers of at least 1"),
    ],
)
def test_a_value_that_does_not_fit_says_what_does(setting, allowed):
    with pytest.raises(ConfigError) as caught:
        load_training_config(None, [f"training.augmentation.{setting}"])
    assert allowed in str(caught.value)
    assert setting.partition("=")[0] in str(caught.value)
