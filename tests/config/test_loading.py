"""Settings from files, earlier runs and the command line."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.config import (
    PredictionConfig,
    TrainingConfig,
    data_config_path,
    load_prediction_config,
    load_training_config,
    with_seed,
)
from incasem.config.files import read_yaml
from incasem.config.layers import merge, schema_of, section_type, unknown_names
from incasem.config.loading import Layer
from incasem.config.overrides import parse_overrides, parse_value
from incasem.errors import ConfigError

SCRIPTS = Path(__file__).parents[2] / "scripts"
TRAINING_YAML = SCRIPTS / "02_train/config_training.yaml"
PREDICTION_YAML = SCRIPTS / "03_predict/config_prediction.yaml"


def flat(values, prefix=""):
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


@pytest.mark.parametrize(
    ("path", "load", "model"),
    [
        (TRAINING_YAML, load_training_config, TrainingConfig),
        (PREDICTION_YAML, load_prediction_config, PredictionConfig),
    ],
)
def test_the_commented_files_repeat_the_defaults(path, load, model):
    assert load(path) == model()
    shown = set(flat(read_yaml(path).values))
    # A prediction takes task, data and model from its training; the two others are command-line options.
    hidden = {n for n in schema_of(model).settings if n.startswith(("task.", "data.", "model."))}
    hidden |= {"training.start_from", "training.continue_id"}
    expected = schema_of(model).settings - (hidden if model is PredictionConfig else hidden - set(shown))
    assert shown == expected


def test_the_published_defaults():
    config = TrainingConfig().to_dict()
    published = {
        "training.iterations": 200000, "training.input_size_voxels": [204] * 3,
        "training.output_size_voxels": [110] * 3, "training.save_every": 1000,
        "training.optimizer.lr": 3e-5, "training.optimizer.weight_decay": 3e-5,
        "training.reject.min_masked": 0.05, "training.reject.reject_probability": 0.9,
        "training.precache.cache_size": 20, "training.precache.num_workers": 8,
        "training.augmentation.elastic.control_point_spacing": [32] * 3,
        "training.augmentation.elastic.jitter_sigma": [2.0] * 3,
        "training.augmentation.elastic.subsample": 4,
        "training.augmentation.intensity.scale": 0.15, "training.augmentation.intensity.shift": 0.15,
        "training.augmentation.simple.transpose_only": [0, 1, 2],
        "training.snapshot.every": 1000, "training.profiling_stats.every": 1000,
        "validation.validate_every": 1000, "validation.snapshot.every": 10,
        "sources.class": "DataSourcesSemantic",
        "data.voxel_size": [5.0] * 3, "data.downsample_factor": 1, "data.num_classes": 2,
        "model.type": "Unet", "model.num_fmaps": 32, "model.num_fmaps_out": 2, "model.fmap_inc_factor": 2,
        "model.downsample_factors": [[2, 2, 2]] * 3, "model.constant_upsample": True,
        "loss.type": "cross_entropy_scaling", "loss.weight": [1.0, 1.0],
        "loss.balance_labels.clipmin": 0.01, "loss.balance_labels.clipmax": 0.99,
        "torch.device": 0, "sacred.log_every": 1000,
    }  # fmt: skip
    assert {name: flat(config)[name] for name in published} == published
    prediction = flat(PredictionConfig().to_dict())
    assert prediction["prediction.num_workers"] == 8
    assert prediction["prediction.torch.device"] == 0
    assert prediction["prediction.log_metrics"] is False


def test_directories_are_expanded_when_read(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SOMEWHERE", "/elsewhere")
    monkeypatch.chdir(tmp_path)
    assert TrainingConfig().directories.runs == tmp_path / "incasem/training_runs"
    config = load_training_config(TRAINING_YAML, ["directories.data=cells", "directories.runs=$SOMEWHERE/x"])
    assert config.directories.data == tmp_path / "cells"
    assert config.directories.runs == tmp_path / "$SOMEWHERE/x"
    assert PredictionConfig().output_directory == tmp_path / "incasem/data"
    assert load_prediction_config(None, ["directories.data=d"]).output_directory == tmp_path / "d"
    assert (
        load_prediction_config(None, ["prediction.directories.prefix=p"]).output_directory == tmp_path / "p"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("15000", 15000), ("none", None), ("None", None), ("true", True), ("False", False),
        ("[1, 2, 3]", [1, 2, 3]), ("(1, 2)", (1, 2)), ("[a/b.json, c]", ["a/b.json", "c"]),
        ("data_configs/x.json", "data_configs/x.json"), ("'quoted'", "quoted"), ('"3"', "3"),
        ("cuda:1", "cuda:1"), ("a=b", "a=b"), ("~/x y.json", "~/x y.json"), ("", ""), ("08", "08"),
        ("{'lr': 1}", {"lr": 1}), ("[unfinished", "[unfinished"), ("__import__('os')", "__import__('os')"),
    ],
)  # fmt: skip
def test_values_of_the_command_line(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@given(st.text(max_size=30))
def test_any_text_is_some_value(text):
    parse_value(text)


def test_later_overrides_win_and_mappings_merge():
    parsed = parse_overrides(["a.b=1", "a={'c': 2}", "a.b=3", "a.d={'e': 4}", "a.d.f=5"])
    assert parsed == {"a": {"b": 3, "c": 2, "d": {"e": 4, "f": 5}}}


@pytest.mark.parametrize("word", ["training.iterations", "=3", ".a=3", "a..b=1"])
def test_a_word_that_is_no_setting_is_refused(word):
    with pytest.raises(ConfigError, match="name=value"):
        load_training_config(None, [word])


def test_precedence(tmp_path):
    yaml = tmp_path / "c.yaml"
    yaml.write_text("training:\n  iterations: 30\n  save_every: 3\n")
    base = {"training": {"iterations": 20, "save_every": 2, "batch_size": 2}, "seed": 4}
    config = load_training_config(yaml, ["training.iterations=40"], base)
    training = config.training
    assert (training.iterations, training.save_every, training.batch_size) == (40, 3, 2)
    assert config.seed == 4
    assert training.optimizer == TrainingConfig().training.optimizer


def test_a_file_without_data_takes_those_of_the_earlier_run(tmp_path):
    yaml = tmp_path / "c.yaml"
    yaml.write_text(
        "training:\n  data:\n  iterations: 30\n  augmentation: {elastic: }\nvalidation: {data: }\n"
    )
    earlier = {"training": {"data": "a.json"}, "validation": {"data": "b.json"}}
    config = load_training_config(yaml, [], earlier)
    assert (config.training.data, config.validation.data) == ("a.json", "b.json")
    assert (config.training.iterations, config.training.augmentation.elastic) == (30, None)
    assert load_training_config(yaml, ["validation.data=none"], earlier).validation.data is None
    assert load_training_config(yaml).training.data is None


def test_several_yaml_files_lie_over_one_another(tmp_path):
    (tmp_path / "a.yaml").write_text("training: {iterations: 1, save_every: 5}\n")
    (tmp_path / "b.yaml").write_text("training: {iterations: 2}\n")
    config = load_training_config([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert (config.training.iterations, config.training.save_every) == (2, 5)


def test_yaml_reads_exponents_without_a_point_as_text_and_we_do_not(tmp_path):
    yaml = tmp_path / "c.yaml"
    yaml.write_text("training: {optimizer: {lr: 3e-4}, iterations: 1e5}\n")
    config = load_training_config(yaml)
    assert config.training.optimizer.lr == 3e-4
    assert config.training.iterations == 100_000


def test_a_prediction_takes_only_the_network_from_its_training(caplog):
    run = TrainingConfig.model_validate(
        {
            "model": {"num_fmaps": 4},
            "data": {"voxel_size": [4, 4, 4]},
            "directories": {"data": "/other/machine"},
        }
    ).to_dict()
    run["model"]["no_longer_known"] = 1
    config = load_prediction_config(None, ["data.num_classes=3"], run)
    assert config.model.num_fmaps == 4
    assert config.data.voxel_size == (4, 4, 4)
    assert config.data.num_classes == 3
    assert config.directories == PredictionConfig().directories
    assert "model.no_longer_known" in caplog.text


def test_the_training_run_wins_over_the_prediction_file(tmp_path):
    yaml = tmp_path / "p.yaml"
    yaml.write_text("model: {num_fmaps: 7}\nprediction: {num_workers: 2}\n")
    config = load_prediction_config(yaml, [], {"model": {"num_fmaps": 4}})
    assert (config.model.num_fmaps, config.prediction.num_workers) == (4, 2)


def test_an_earlier_run_does_not_pass_on_how_it_was_started():
    base = {"training": {"start_from": [1, "x"], "continue_id": 3, "iterations": 5}}
    training = load_training_config(None, [], base).training
    assert (training.start_from, training.continue_id, training.iterations) == (None, None, 5)


def test_settings_survive_the_record(tmp_path):
    config = with_seed(load_training_config(None, ["training.augmentation.elastic=none", "torch.device=cpu"]))
    recorded = json.loads(json.dumps(config.to_dict()))
    assert TrainingConfig.model_validate(recorded) == config
    assert load_training_config(None, [], recorded) == config


def test_augmentation_is_switched_off_and_on_again(tmp_path):
    yaml = tmp_path / "c.yaml"
    yaml.write_text("training: {augmentation: {elastic: null}}\n")
    assert load_training_config(yaml).training.augmentation.elastic is None
    on = load_training_config(yaml, ["training.augmentation.elastic.subsample=2"]).training.augmentation
    assert on.elastic is not None
    assert on.elastic.subsample == 2


@pytest.mark.parametrize(
    ("override", "device"),
    [("0", 0), ("'1'", 1), ("cuda:2", 2), ("cpu", "cpu"), ("CPU", "cpu"), ("cuda", "cuda"), ("auto", "auto")],
)
def test_devices(override, device):
    assert load_training_config(None, [f"torch.device={override}"]).torch.device == device


def message(*overrides, load=load_training_config):
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("training.reject.probability=0.5", "'training.reject.reject_probability'"),
        ("training.optimiser.lr=1", "'training.optimizer.lr'"),
        ("lr=1", "'training.optimizer.lr'"),
        ("trainning.data=x", "'training.data'"),
        ("training.iteration=5", "'training.iterations'"),
        ("torch.divice=0", "'torch.device'"),
        ("seeed=1", "'seed'"),
    ],
)
def test_unknown_settings_are_named_with_the_nearest_known_one(override, hint):
    text = message(override)
    assert override.partition("=")[0].partition(".")[0] in text
    assert "(command line)" in text
    assert hint in text
    assert "\n" not in text


def test_the_device_of_a_prediction_lies_below_prediction():
    assert "'prediction.torch.device'" in message("torch.device=cpu", load=load_prediction_config)


def test_an_unknown_setting_without_a_near_one_lists_what_there_is():
    assert "Allowed in 'torch': device" in message("torch.zzzzz=1")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.iterations=many", ["'many'", "a whole number of at least 0", "200000"]),
        ("training.iterations=1.5", ["1.5", "a whole number"]),
        ("training.iterations=True", ["True", "a whole number"]),
        ("training.iterations=-1", ["-1", "at least 0"]),
        ("seed=4294967296", ["at least 0 and at most 4294967295"]),
        ("training.save_every=0", ["a whole number of at least 1"]),
        ("training.optimizer.lr=0", ["a number above 0"]),
        ("training.optimizer.lr=nan", ["a number above 0"]),
        ("training.optimizer.lr=1e999", ["a number above 0"]),
        ("training.reject.min_masked=1.2", ["at least 0 and of at most 1"]),
        ("training.input_size_voxels=204", ["three whole numbers of at least 1 z, y, x", "[204, 204, 204]"]),
        ("training.input_size_voxels=[204,204]", ["three whole numbers"]),
        ("training.precision=fp8", ["'auto', 'fp32', 'bf16' or 'fp16'", "'fp8'"]),
        ("training.data=[1,2]", ["one path"]),
        ("training.optimizer=3", ["lr", "weight_decay", "training.optimizer.lr=…"]),
        ("model.constant_upsample=1", ["True or False"]),
        ("model.downsample_factors=[2,2,2]", ["a list of factors z, y, x"]),
        ("model.type=Vnet", ["'Unet'"]),
        ("loss.weight=[]", ["one number of at least 0 for each class"]),
        ("loss.weight=[0,0]", ["not all 0"]),
        ("torch.device=gpu", ["'cpu', 'cuda' or 'auto'"]),
        ("torch.device=-1", ["number of a GPU"]),
        ("data.voxel_size=[5,5,0]", ["above 0 (nm)"]),
        ("training.augmentation.simple.transpose_only=[0,3]", ["axes out of 0 (z)"]),
        ("training.start_from=5", ["--start_from"]),
        ("training.snapshot.every={'each': 3}", ["training.snapshot.every"]),
    ],
)
def test_a_value_that_does_not_fit_says_what_does(override, parts):
    text = message(override)
    assert override.partition("=")[0] in text
    assert "(command line)" in text
    assert "allowed: " in text
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_all_problems_are_reported_together_with_their_places(tmp_path):
    yaml = tmp_path / "c.yaml"
    yaml.write_text("training:\n  iterations: many\n  savevery: 3\nmodel:\n  num_fmaps: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_training_config(yaml, ["torch.device=x"])
    text = str(caught.value)
    assert text.startswith("4 settings cannot be used:")
    assert f"{yaml}, line 2" in text
    assert f"training.savevery ({yaml}, line 3) is not a setting. Did you mean 'training.save_every'?" in text
    assert f"{yaml}, line 5" in text
    assert "(command line)" in text


def test_a_long_list_of_problems_is_cut():
    text = message(*(f"zzz{i}=1" for i in range(9)))
    assert text.count("\n  - ") == 6
    assert "and 4 more" in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("training:\n  data: [1\n", ["line 3", "valid YAML"]),
        ("training:\n\tdata: 1\n", ["line 2"]),
        ("a: 1\nb: 2\na: 3\n", ["line 3", "a is set a second time", "line 1"]),
        ("training:\n  data: a\n  data: b\n", ["training.data is set a second time"]),
        ("- a\n- b\n", ["holds no settings"]),
        ("hello\n", ["holds no settings"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["line 1"]),
    ],
)
def test_faults_of_a_yaml_file_are_named_with_their_line(tmp_path, content, parts):
    yaml = tmp_path / "c.yaml"
    yaml.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_training_config(yaml)
    for part in [str(yaml), *parts]:
        assert part in str(caught.value)


def test_an_empty_yaml_file_sets_nothing(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_training_config(tmp_path / "c.yaml") == TrainingConfig()


def test_a_yaml_file_that_is_no_text(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_training_config(tmp_path / "c.yaml")


def test_missing_files_say_where_was_looked_and_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config_training.yaml").write_text("")
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"Did you mean 'config_training\.yaml'") as caught:
        load_training_config("config_trainnig.yaml")
    assert str(tmp_path / "config_trainnig.yaml") in str(caught.value)
    assert "current folder" in str(caught.value)
    with pytest.raises(ConfigError, match=f"no folder {tmp_path}/data_configs"):
        data_config_path("data_configs/train.json", "training.data")
    with pytest.raises(ConfigError, match=r"There are: train\.json"):
        data_config_path("zzzzzz.json", "training.data")
    with pytest.raises(ConfigError, match="is a folder"):
        data_config_path(str(tmp_path), "training.data")
    with pytest.raises(ConfigError, match=r"training\.data is not set"):
        data_config_path(None, "training.data")
    assert data_config_path("train.json", "training.data") == tmp_path / "train.json"


def test_settings_without_effect_are_accepted_and_said_to_be(caplog):
    with caplog.at_level(logging.WARNING):
        load_training_config(
            None, ["training.log_every=10", "sources.class=Other", "training.pipeline=baseline"]
        )
    assert [r.getMessage().split()[0] for r in caplog.records] == [
        "sources.class",
        "training.log_every",
        "training.pipeline",
    ]
    caplog.clear()
    load_training_config(TRAINING_YAML)
    assert not caplog.records


def test_the_seed_is_drawn_once():
    drawn = with_seed(TrainingConfig())
    assert drawn.seed is not None
    assert drawn.seed != with_seed(TrainingConfig()).seed
    assert with_seed(drawn) == drawn


KNOWN = sorted(schema_of(TrainingConfig).settings)


@given(st.dictionaries(st.sampled_from(KNOWN), st.integers(), max_size=5), st.sampled_from(KNOWN))
def test_merging_keeps_the_topmost_value(values, name):
    def nested(key, value):
        for part in reversed(key.split(".")):
            value = {part: value}
        return value

    layers = [Layer(f"origin {i}", nested(key, value)) for i, (key, value) in enumerate(values.items())]
    merged, places = merge([*layers, Layer("top", nested(name, "x"))])
    assert flat(merged) == values | {name: "x"}
    assert places[name] == "top"
    assert unknown_names(merged, schema_of(TrainingConfig)) == []


def test_sections_are_found_in_optional_fields():
    elastic = TrainingConfig().training.augmentation.__class__.model_fields["elastic"].annotation
    assert section_type(elastic).__name__ == "Elastic"
    assert section_type(int | None) is None
