"""One step of the optimizer, however its samples are split, and what it refuses."""

import copy

import pytest
import torch

from incasem.config import TrainingConfig
from incasem.config.training import Optimizer
from incasem.errors import DataError
from incasem.networks import build_network, initialise
from incasem.training.optimization import make_optimizer
from incasem.training.samples import Batch
from incasem.training.step import Stepper

MODEL = {"num_fmaps": 2, "downsample_factors": [[2, 2, 2]]}
LOSS = {"bce_weight": 0.5, "dice_weight": 0.5}


def batch_of(*numbers):
    generator = torch.Generator().manual_seed(numbers[0])
    size = len(numbers)
    labels = torch.randint(0, 2, (size, 10, 10, 10), generator=generator)
    mask = (torch.rand(labels.shape, generator=generator) > 0.2 * numbers[0]).to(torch.uint8)
    return Batch(
        raw=torch.rand((size, 1, 28, 28, 28), generator=generator) * 2 - 1,
        labels=labels,
        loss_scale=mask * (1 + labels.float()),
        mask=mask,
        metric_mask=mask,
        position=[(0, 0, number) for number in numbers],
        entry=[0] * size,
        nickname=["cell"] * size,
        voxel_size=[(5.0, 5.0, 5.0)] * size,
        number=list(numbers),
    )


def joined(*batches):
    columns = {}
    for name in Batch.__dataclass_fields__:
        values = [getattr(batch, name) for batch in batches]
        tensors = isinstance(values[0], torch.Tensor)
        columns[name] = torch.cat(values) if tensors else [one for value in values for one in value]
    return Batch(**columns)


def stepper(precision=torch.float32, seed=0, loss=LOSS, **training):
    config = TrainingConfig.model_validate({"training": training, "model": MODEL, "loss": loss})
    torch.manual_seed(seed)
    network = build_network(config.model.model_dump())
    initialise(network)
    optimizer = make_optimizer(network, Optimizer(lr=1e-3, weight_decay=0))
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)
    device = torch.device("cpu")
    return Stepper(config, network, optimizer, scaler, device, precision)


def gradients(made):
    return {name: p.grad.clone() for name, p in made.network.named_parameters()}


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_batches_of_1_give_the_gradient_of_one_of_n(clip):
    batches = [batch_of(number) for number in range(3)]
    one, several = stepper(gradient_clip=clip), stepper(gradient_clip=clip, accumulate=3)
    loss, _ = one.step(0, [joined(*batches)])
    parts, _ = several.step(0, batches)
    assert parts == pytest.approx(loss, rel=1e-6)
    expected = gradients(one)
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in gradients(several).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6 * largest)


def test_a_masked_sample_changes_nothing_and_breaks_nothing():
    empty = batch_of(1)
    empty.loss_scale.zero_()
    made = stepper()
    loss, _ = made.step(0, [empty])
    assert loss == pytest.approx(0, abs=1e-6)
    assert not any(gradient.any() for gradient in gradients(made).values())
    for batches in ([batch_of(0), empty], [empty, batch_of(0)]):
        assert torch.isfinite(torch.tensor(stepper(accumulate=2).step(0, batches)[0]))


def state(made):
    return copy.deepcopy([made.network.state_dict(), made.optimizer.state_dict()])


def test_a_loss_that_is_not_finite_names_its_sample_and_changes_nothing():
    made = stepper(accumulate=2)
    made.step(0, [batch_of(0), batch_of(1)])
    before = state(made)
    broken = batch_of(3)
    broken.raw[0, 0, 14, 14, 14] = float("nan")
    with pytest.raises(
        DataError, match=r"the loss is nan .*sample 3 \(of 'cell', .*voxel \[0, 0, 3\]\); the"
    ):
        made.step(1, [batch_of(2), broken])
    assert_same(state(made), before)


def test_a_gradient_that_is_not_finite_changes_nothing_either():
    """The weights would be spoilt, and the loss of the next sample would be blamed."""
    made = stepper()
    made.step(0, [batch_of(0)])
    before = state(made)
    last = list(made.network.parameters())[-1]
    last.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match=r"norm of the gradient is (inf|nan) .*sample 2 \(of 'cell'"):
        made.step(1, [batch_of(2)])
    assert_same(state(made), before)


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_float16_leaves_a_step_out_whose_gradient_overflows():
    made = stepper(torch.float16)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = state(made)
    made.step(0, [batch_of(0)])
    assert_same(made.network.state_dict(), before[0])
    assert made.scaler.get_scale() == 2.0**39


def test_float16_learns_what_float32_learns():
    low, exact = stepper(torch.float16), stepper()
    for iteration in range(3):
        loss, _ = low.step(iteration, [batch_of(iteration)])
        expected, _ = exact.step(iteration, [batch_of(iteration)])
        assert loss == pytest.approx(expected, rel=1e-2)
    assert low.scaler.state_dict()["_growth_tracker"] == 3
    scaled = torch.cat([g.flatten() for g in gradients(low).values()])
    plain = torch.cat([g.flatten() for g in gradients(exact).values()])
    assert torch.nn.functional.cosine_similarity(scaled, plain, dim=0) > 0.99
    assert float(scaled.norm()) == pytest.approx(float(plain.norm()), rel=0.05), "unscaled before the step"


def test_compile_reaches_torch(monkeypatch):
    asked = []

    def compile(network, **settings):
        asked.append((network, settings))
        return network

    monkeypatch.setattr(torch, "compile", compile)
    made = stepper()
    assert not asked
    made = stepper(compile=True)
    assert asked == [(made.network, {"dynamic": False})]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_compiled_network_learns_the_same(precision):
    plain, compiled = stepper(precision), stepper(precision, compile=True)
    for iteration in range(3):
        expected, _ = plain.step(iteration, [batch_of(iteration)])
        loss, _ = compiled.step(iteration, [batch_of(iteration)])
        assert loss == pytest.approx(expected, rel=1e-4 if precision == torch.float32 else 1e-2)
    assert list(compiled.network.state_dict()) == list(plain.network.state_dict())
    if precision == torch.float32:
        torch.testing.assert_close(
            compiled.network.state_dict(), plain.network.state_dict(), rtol=1e-3, atol=1e-4
        )
