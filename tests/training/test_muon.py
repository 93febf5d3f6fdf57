"""Muon: even steps in all directions for filters, Adam for the rest, and what checkpoints keep of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config.training import Optimizer
from incasem.errors import CheckpointError
from incasem.networks import Unet, initialise, load_checkpoint, load_optimizer, save_checkpoint, standardise
from incasem.training.muon import orthogonal
from incasem.training.optimization import make_optimizer


def small_network(seed=0):
    torch.manual_seed(seed)
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    initialise(network, centred=True)
    return network


def take_steps(network, optimizer, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(count):
        raw = torch.randn((1, 1, 20, 20, 20), generator=generator)
        loss = (network(raw) - 1).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_singular_values_come_near_one(rows, columns, seed):
    matrix = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    values = np.linalg.svd(matrix, compute_uv=False)
    if values[-1] < 0.05 * values[0]:
        return  # too flat for five iterations
    near = np.linalg.svd(orthogonal(torch.from_numpy(matrix)).numpy(), compute_uv=False)
    assert near.min() > 0.5
    assert near.max() < 1.3


def test_directions_stay():
    """U and V of the decomposition do: what is made orthogonal is the gradient, not something else."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(6, 30), full_matrices=False)
    made = orthogonal(u @ torch.diag(torch.tensor([9.0, 7, 5, 3, 2, 1])) @ vh)
    assert float((u.T @ made @ vh.T).diagonal().min()) > 0.6
    off = u.T @ made @ vh.T
    assert float((off - torch.diag(off.diagonal())).abs().max()) < 0.05


def test_a_matrix_of_zeros():
    assert not orthogonal(torch.zeros(3, 5)).any()


def test_steps_have_the_size_of_adams():
    network = small_network()
    optimizer = make_optimizer(network, Optimizer(type="muon", lr=1e-3, weight_decay=0))
    before = [parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]]
    take_steps(network, optimizer, 1)
    for old, new in zip(before, optimizer.param_groups[0]["params"], strict=True):
        rows, columns = old.flatten(1).shape
        step = float((new.detach() - old).square().mean().sqrt())
        expected = 1e-3 * 0.2 * (max(rows, columns) * min(rows, columns) / old.numel()) ** 0.5
        assert 0.4 * expected < step < 1.3 * expected


@pytest.mark.parametrize("standardised", [False, True])
def test_what_is_a_filter(standardised):
    network = small_network()
    if standardised:
        standardise(network)
    filters, others = (g["params"] for g in make_optimizer(network, Optimizer(type="muon")).param_groups)
    assert [tuple(p.shape) for p in filters] == [
        (2, 2, 3, 3, 3),
        (4, 2, 3, 3, 3),
        (4, 4, 3, 3, 3),
        (2, 6, 3, 3, 3),
        (2, 2, 3, 3, 3),
    ]
    assert {id(p) for p in [*filters, *others]} == {id(p) for p in network.parameters()}
    assert len(filters) + len(others) == len(list(network.parameters()))


def test_all_parameters_move_and_the_loss_falls():
    network = small_network()
    standardise(network)
    optimizer = make_optimizer(network, Optimizer(type="muon", lr=5e-3, weight_decay=0))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    losses = take_steps(network, optimizer, 60)
    # The bias of a hidden layer may sit at a ReLU that never opens.
    still = [
        name for name, p in network.named_parameters() if torch.equal(p, before[name]) and "bias" not in name
    ]
    assert not still
    assert np.mean(losses[-10:]) < 0.6 * losses[0]


def test_weight_decay_shrinks_filters_without_a_gradient_of_their_own():
    network = small_network()
    optimizer = make_optimizer(network, Optimizer(type="muon", lr=0.1, weight_decay=0.5))
    filters = optimizer.param_groups[0]["params"]
    before = [parameter.detach().clone() for parameter in filters]
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for old, new in zip(before, filters, strict=True):
        torch.testing.assert_close(new.detach(), old * 0.95)


def test_a_continued_training_takes_the_same_steps(tmp_path):
    whole = small_network()
    optimizer = make_optimizer(whole, Optimizer(type="muon", lr=1e-3))
    take_steps(whole, optimizer, 3)
    save_checkpoint(tmp_path / "model_checkpoint_3", whole, optimizer, {})
    losses = take_steps(whole, optimizer, 3, seed=1)

    again = small_network(seed=9)
    checkpoint = load_checkpoint(tmp_path / "model_checkpoint_3")
    again.load_state_dict(checkpoint.model_state)
    other = make_optimizer(again, Optimizer(type="muon", lr=1e-3))
    load_optimizer(other, checkpoint)
    assert take_steps(again, other, 3, seed=1) == losses


@pytest.mark.parametrize(("written", "read"), [("adam", "muon"), ("muon", "adam")])
def test_the_state_of_another_optimizer_is_refused(tmp_path, written, read):
    network = small_network()
    optimizer = make_optimizer(network, Optimizer(type=written))
    take_steps(network, optimizer, 1)
    save_checkpoint(tmp_path / "model_checkpoint_1", network, optimizer, {})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_optimizer(
            make_optimizer(network, Optimizer(type=read)), load_checkpoint(tmp_path / "model_checkpoint_1")
        )
