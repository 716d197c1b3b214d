"""A network whose weights are in hand is trained and scored as any other: on the same device, at the same precision."""

import torch

import monai_ccnet
from monai_ccnet.networks import PlainUNet
from monai_ccnet.training import evaluate_network, train_network

ROOT = monai_ccnet.bundle_root()
UNET = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (4, 8, 8)}


class Watched(PlainUNet):
    """Keeps where it was sent and in which precision it calculated, in training and in evaluation."""

    def __init__(self):
        super().__init__(**UNET)
        self.sent, self.kinds = [], {True: set(), False: set()}
        self.head.register_forward_hook(self._note)

    def _note(self, _, inputs, output):
        if not output.is_meta:  # as it is when sizes are counted
            self.kinds[self.training].add(output.dtype)

    def to(self, *places, **formats):
        self.sent += [str(place) for place in places]
        return super().to(*places, **formats)


def test_it_obeys_device_and_precision_and_returns_to_where_it_was(disks_2d, tmp_path, quick):
    recipe = {**quick, "max_epochs": 1, "patch_size": [32, 32], "dataset_dir": str(disks_2d)}
    del recipe["channels"]
    network = Watched()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_network(ROOT, tmp_path / "train", network, **recipe, device="cpu:0", precision="bfloat16")
    assert "cpu:0" in network.sent
    assert network.kinds[True] == {torch.bfloat16}
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())
    network.kinds = {True: set(), False: set()}
    network.sent.clear()
    record = evaluate_network(ROOT, tmp_path / "evaluate", network, {"_target_": "PlainUNet", **UNET}, **recipe)
    assert network.kinds == {True: set(), False: {torch.float32}}
    assert network.sent
    assert record.dataset == "disks"
    assert record.file_bytes == (tmp_path / "evaluate" / "model.pt").stat().st_size
    assert "forward" not in vars(network)
    assert all(value.device.type == "cpu" for value in network.state_dict().values())
