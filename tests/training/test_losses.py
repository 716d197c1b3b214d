"""Deep supervision: by hand, the law of its decay, its state, and a training with it."""

import io

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.losses import DiceCELoss

from monai_ccnet.networks import CUMedVision, PlainUNet, UCUNet
from monai_ccnet.training.losses import DeepSupervision

CROSS_ENTROPY = {"softmax": True, "to_onehot_y": True, "lambda_dice": 0.0}


def test_the_sum_by_hand():
    output = torch.stack([torch.full((2, 1, 4, 4), value) for value in (1.0, 2.0, 5.0)], dim=1)
    loss = DeepSupervision(torch.nn.L1Loss(), decay_iterations=100, weight=0.5)
    assert loss(output, torch.zeros(2, 1, 4, 4)).item() == pytest.approx(1 + 0.5 * (2 + 5))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_each_output_gets_the_loss_it_wraps(spatial_dims):
    shape = [8, 8, 4][:spatial_dims]
    output, target = torch.randn(2, 4, 3, *shape), torch.randint(0, 3, (2, 1, *shape))
    single = DiceCELoss(**CROSS_ENTROPY)
    expected = single(output[:, 0], target) + 0.3 * sum(single(output[:, i], target) for i in (1, 2, 3))
    torch.testing.assert_close(DeepSupervision(single, 10, weight=0.3)(output, target), expected)
    torch.testing.assert_close(DeepSupervision(single, 10)(output[:, 0], target), single(output[:, 0], target))


def test_the_loss_of_a_batch_is_the_mean_over_its_cases():
    output, target = torch.randn(3, 4, 2, 8, 8), torch.randint(0, 2, (3, 1, 8, 8))
    loss = DeepSupervision(DiceCELoss(**CROSS_ENTROPY), 10).eval()
    cases = torch.stack([loss(output[[case]], target[[case]]) for case in range(3)])
    torch.testing.assert_close(loss(output, target), cases.mean())


def test_a_list_of_coarser_outputs_gets_a_subsampled_target():
    target = torch.zeros(1, 1, 8, 8)
    target[..., ::2, ::2] = 1.0
    outputs = [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]
    loss = DeepSupervision(torch.nn.L1Loss(), 10)
    assert loss(outputs, target).item() in (0.25, 1.25)  # nearest takes all or none of the points set
    assert loss.iteration == 1


def test_the_weight_falls_to_the_last_and_stays():
    loss = DeepSupervision(torch.nn.L1Loss(), decay_iterations=4, weight=1.0, final_weight=0.01)
    weights = []
    for _ in range(6):
        weights.append(loss.auxiliary_weight)
        loss(torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    assert weights == pytest.approx([1, 10**-0.5, 0.1, 10**-1.5, 0.01, 0.01])


def test_only_training_with_auxiliary_outputs_counts():
    loss, target = DeepSupervision(torch.nn.L1Loss(), 4), torch.zeros(1, 1, 4, 4)
    loss(torch.zeros(1, 1, 4, 4), target)
    loss([torch.zeros(1, 1, 4, 4)], target)
    loss.eval()(torch.zeros(1, 3, 1, 4, 4), target)
    assert loss.iteration == 0
    loss.train()(torch.zeros(1, 3, 1, 4, 4), target)
    assert loss.iteration == 1


def test_the_count_is_restored_from_a_file_that_runs_no_code():
    loss, file = DeepSupervision(torch.nn.L1Loss(), 4), io.BytesIO()
    for _ in range(3):
        loss(torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    torch.save(loss.state_dict(), file)
    file.seek(0)
    restored = DeepSupervision(torch.nn.L1Loss(), 4)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.auxiliary_weight == loss.auxiliary_weight == pytest.approx(10**-1.5)


def test_monais_checkpoints_hold_the_count(tmp_path):
    loss, restored = (DeepSupervision(torch.nn.L1Loss(), 4) for _ in range(2))
    network = torch.nn.Linear(1, 1)
    trainer = Engine(lambda engine, batch: loss(torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 1, 4, 4)))
    CheckpointSaver(
        str(tmp_path), {"network": network, "loss": loss}, save_final=True, final_filename="last.pt"
    ).attach(trainer)
    trainer.run([0, 1, 2])
    later = Engine(lambda engine, batch: None)
    CheckpointLoader(str(tmp_path / "last.pt"), {"network": network, "loss": restored}).attach(later)
    later.add_event_handler(Events.STARTED, lambda engine: None)
    later.run([0])
    assert restored.iteration == loss.iteration == 3


def test_auxiliary_outputs_add_gradients():
    output = torch.zeros(1, 3, 1, 4, 4, requires_grad=True)
    DeepSupervision(torch.nn.MSELoss(), 10, weight=0.5)(output, torch.ones(1, 1, 4, 4)).backward()
    main, *auxiliary = output.grad[0, :, 0, 0, 0]
    assert [g.item() for g in auxiliary] == pytest.approx([0.5 * main.item()] * 2)


@pytest.mark.parametrize("network_class", [PlainUNet, CUMedVision, UCUNet])
def test_a_short_training_lowers_the_loss(network_class):
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    centres = torch.randint(8, 24, (4, 2, 1, 1))
    target = (((y - centres[:, :1]) ** 2 + (x - centres[:, 1:]) ** 2) < 36).float()
    image = target + 0.3 * torch.randn_like(target)
    network, loss = network_class(channels=(4, 6, 8), out_channels=2), DeepSupervision(DiceCELoss(**CROSS_ENTROPY), 40)
    optimizer, single = torch.optim.Adam(network.parameters(), lr=0.02), DiceCELoss(**CROSS_ENTROPY)
    losses = []
    for _ in range(40):
        output = network(image)
        losses.append(single(output[:, 0] if output.ndim == 5 else output, target).item())
        optimizer.zero_grad()
        loss(output, target).mean().backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay_iterations": 0}, "decay_iterations must be at least 1, got 0"),
        ({"final_weight": 0.0}, "0 < final_weight <= weight must hold, got final_weight=0.0"),
        ({"weight": 0.001}, "weight=0.001"),
        ({"weight": -1.0}, "weight=-1.0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        DeepSupervision(torch.nn.L1Loss(), **({"decay_iterations": 10} | options))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"output of shape \(1, 4, 4\) does not fit a target of shape \(1, 1, 4, 4\)"):
        DeepSupervision(torch.nn.L1Loss(), 10)(torch.zeros(1, 4, 4), torch.zeros(1, 1, 4, 4))
