import json
import logging
import os
import pickle

import pytest
import torch

from incasem.errors import CheckpointError
from incasem.networks import Unet, checkpoint, latest_checkpoint, load_checkpoint, load_into, save_checkpoint


@pytest.fixture
def trained():
    """A small network and its optimizer after one step."""
    torch.manual_seed(1)
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    network(torch.rand(1, 1, *network.smallest_input)).square().sum().backward()
    optimizer.step()
    return network, optimizer


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip(tmp_path, trained):
    network, optimizer = trained
    path = tmp_path / "models" / "model_checkpoint_10"
    save_checkpoint(path, network, optimizer, {"run": 7, "model": {"num_fmaps": 2}})
    loaded = load_checkpoint(path)
    assert _equal(loaded.model_state, network.state_dict())
    assert loaded.sidecar == {"run": 7, "model": {"num_fmaps": 2}}
    assert loaded.training_state is None
    moments = loaded.optimizer_state["state"]
    assert torch.equal(moments[0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "model_checkpoint_10",
        "model_checkpoint_10.json",
    ]


def test_file_has_exactly_the_published_keys_and_plain_layout(tmp_path, trained):
    network, optimizer = trained
    save_checkpoint(tmp_path / "c", network.to(memory_format=torch.channels_last_3d), optimizer, {})
    content = torch.load(tmp_path / "c", weights_only=True)
    assert list(content) == ["model_state_dict", "optimizer_state_dict"]
    assert all(value.is_contiguous() for value in content["model_state_dict"].values())


def test_published_file_without_sidecar_loads(tmp_path):
    network = Unet(num_fmaps=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-5)
    torch.save(
        {"model_state_dict": network.state_dict(), "optimizer_state_dict": optimizer.state_dict()},
        tmp_path / "model_checkpoint_1841_er_CF.pt",
    )
    loaded = load_checkpoint(tmp_path / "model_checkpoint_1841_er_CF.pt")
    assert loaded.sidecar is None
    other = Unet(num_fmaps=2)
    load_into(other, loaded)
    assert _equal(other.state_dict(), network.state_dict())


def test_averaged_weights_are_what_predictions_load(tmp_path, trained):
    network, optimizer = trained
    averaged = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    save_checkpoint(tmp_path / "c", averaged, optimizer, {}, in_training=network)
    loaded = load_checkpoint(tmp_path / "c")
    assert _equal(loaded.model_state, averaged.state_dict())
    assert _equal(loaded.training_state, network.state_dict())


def test_the_state_of_a_scaler(tmp_path, trained):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    save_checkpoint(tmp_path / "c", *trained, {}, scaler=scaler)
    other = torch.amp.GradScaler("cpu")
    other.load_state_dict(load_checkpoint(tmp_path / "c").scaler_state)
    assert other.state_dict() == scaler.state_dict()
    save_checkpoint(tmp_path / "d", *trained, {}, scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert load_checkpoint(tmp_path / "d").scaler_state is None


def test_sidecar_is_valid_json_whatever_the_scores_are(tmp_path, trained):
    scores = {"f1": float("nan"), "loss": torch.tensor(0.5), "path": tmp_path, 3: (1, 2)}
    save_checkpoint(tmp_path / "c", trained[0], None, scores)

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "c.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "f1": None,
        "loss": 0.5,
        "path": str(tmp_path),
        "3": [1, 2],
    }
    assert load_checkpoint(tmp_path / "c").optimizer_state is None


def test_every_truncation_is_noticed(tmp_path, trained):
    save_checkpoint(tmp_path / "whole", *trained, {})
    content = (tmp_path / "whole").read_bytes()
    torn = tmp_path / "torn"
    for part in (0, 1, 100, len(content) // 4, len(content) // 2, len(content) - 100, len(content) - 1):
        torn.write_bytes(content[:part])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(torn)


@pytest.mark.parametrize("content", [b"torn", b"\x80\x02.", b"N.", bytes(5000), b"}R."])
def test_other_bytes_are_noticed(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged|model_state_dict"):
        load_checkpoint(tmp_path / "c")


def test_zeroed_page_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "c", Unet(num_fmaps=12, downsample_factors=((2, 2, 2),)), None, {})
    content = bytearray((tmp_path / "c").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c")


def test_missing_file_lists_its_neighbours(tmp_path, trained):
    save_checkpoint(tmp_path / "model_checkpoint_5", *trained, {})
    with pytest.raises(CheckpointError, match="In that directory: model_checkpoint_5"):
        load_checkpoint(tmp_path / "model_checkpoint_6")
    with pytest.raises(CheckpointError, match="no directory"):
        load_checkpoint(tmp_path / "nowhere" / "model_checkpoint_6")


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2], {"model_state_dict": {"a": 1}}])
def test_other_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "c")
    with pytest.raises(CheckpointError, match="model_state_dict"):
        load_checkpoint(tmp_path / "c")


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_nothing_in_a_file_is_executed(tmp_path, write):
    write({"model_state_dict": _Payload(tmp_path / "owned")}, tmp_path / "c")
    with pytest.raises(CheckpointError, match="never loaded"):
        load_checkpoint(tmp_path / "c")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_sidecar_is_named(tmp_path, trained, text):
    save_checkpoint(tmp_path / "c", *trained, {})
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"sidecar .*c\.json"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_full_disk_leaves_the_old_checkpoint(tmp_path, trained, monkeypatch, error):
    path = tmp_path / "c"
    save_checkpoint(path, *trained, {"iteration": 1})
    before = path.read_bytes()

    def fail(content, stream):
        stream.write(b"half a")
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(path, *trained, {"iteration": 2})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.json"]


def test_killed_while_writing_leaves_no_file_of_that_name(tmp_path, trained, monkeypatch):
    class Killed(BaseException):
        pass

    def die(source, target):
        if str(target).endswith("model_checkpoint_2"):
            raise Killed

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(Killed):
        save_checkpoint(tmp_path / "model_checkpoint_2", *trained, {})
    assert latest_checkpoint(tmp_path) is None


def test_latest_is_the_highest_whole_one(tmp_path, trained, caplog):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    assert latest_checkpoint(tmp_path) is None
    for iteration in (0, 9, 10):
        save_checkpoint(tmp_path / f"model_checkpoint_{iteration}", *trained, {})
    (tmp_path / "model_checkpoint_99.pt").touch()
    (tmp_path / ".model_checkpoint_50.abc.tmp").touch()
    assert latest_checkpoint(tmp_path) == (10, tmp_path / "model_checkpoint_10")
    torn = tmp_path / "model_checkpoint_11"
    torn.write_bytes((tmp_path / "model_checkpoint_10").read_bytes()[:-500])
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == (10, tmp_path / "model_checkpoint_10")
    assert "model_checkpoint_11" in caplog.text
