import json

import pytest

from incasem.errors import ConfigError
from incasem.segmentation.fragments import FragmentSettings


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"method": "watersheds"}, "method is watersheds; allowed: watershed, seeded, mutex.*'watershed'"),
        ({"low": -0.1}, "low is -0.1; allowed: a number from 0 to 1"),
        ({"high": 1.5}, "high is 1.5"),
        ({"high": float("nan")}, "high is nan"),
        ({"low": 0.7, "high": 0.7}, "high is 0.7; allowed: at least 1/255 above low"),
        ({"join_overlap": 0}, "join_overlap is 0; allowed: above 0"),
        ({"seed_blur": -1}, "seed_blur is -1; allowed: 0 or more"),
        ({"seed_distance": float("inf")}, "seed_distance is inf"),
        ({"long_range_stride": (1, 0, 1)}, "long_range_stride"),
        ({"context_voxels": 0}, "context_voxels is 0; allowed: 1 or more"),
        ({"context_voxels": (3, 4)}, "context_voxels"),
    ],
)
def test_senseless_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        FragmentSettings(**setting)


def test_thresholds_in_255_steps():
    assert (FragmentSettings().low_step, FragmentSettings().high_step) == (0, 255)
    settings = FragmentSettings(low=0.2, high=0.6)  # 51 and 153 exactly
    assert (settings.low_step, settings.high_step) == (51, 153)
    assert FragmentSettings(low=0, high=1).high_step == 255
    assert FragmentSettings(low=0, high=0.001).high_step == 1


def test_only_what_a_method_reads_is_its_identity():
    assert FragmentSettings(seed_blur=3).identity() == FragmentSettings().identity()
    for method in ("watershed", "seeded", "mutex"):
        json.dumps(FragmentSettings(method=method).identity())
    assert FragmentSettings(method="seeded", seed_blur=3).identity()["seed_blur"] == 3
    assert FragmentSettings(method="mutex", context_voxels=[4, 5, 6]).context == (4, 5, 6)
    assert FragmentSettings(method="seeded", per_section=True, context_voxels=9).context == (0, 9, 9)
    assert FragmentSettings(method="mutex", per_section=True, context_voxels=9).context == (0, 9, 9)
    assert FragmentSettings(context_voxels=9).context == (0, 0, 0)
