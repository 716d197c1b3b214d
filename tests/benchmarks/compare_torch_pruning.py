"""Which networks Torch-Pruning can halve, and which ours can: a table of the parameters left, or of the error.

    python tests/benchmarks/compare_torch_pruning.py

prints it as CSV, and writes it with ``-o TABLE.csv``; that of the page is
``bundles/complexity_guided_compression/docs/comparison/torch_pruning.csv``.
"""

import warnings
from importlib.metadata import version

import torch
import torch_pruning
from csv_tables import command_line, save_or_print

from monai_ccnet.networks import build_network
from monai_ccnet.posttraining import prune_share

NETS = "monai.networks.nets."
OURS = "monai_ccnet.networks."
IN_OUT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
STRIDED = {**IN_OUT, "channels": [8, 16, 32], "strides": [2, 2]}
DYNUNET = {**IN_OUT, "strides": [1, 2, 2], "kernel_size": [3] * 3, "upsample_kernel_size": [2] * 2}
NETWORKS = {
    **{name: {"_target_": OURS + name, **IN_OUT, "channels": [8, 16, 32]} for name in ("PlainUNet", "CUMedVision")},
    "UCUNet": {"_target_": OURS + "UCUNet", **IN_OUT, "channels": [8, 16, 32]},
    "PlainUNet in 3-D": {"_target_": OURS + "PlainUNet", **IN_OUT, "spatial_dims": 3, "channels": [8, 16, 32]},
    "UNet": {"_target_": NETS + "UNet", **STRIDED},
    "UNet, ReLU and batch norm": {"_target_": NETS + "UNet", **STRIDED, "act": "RELU", "norm": "BATCH"},
    "UNet with residual units": {"_target_": NETS + "UNet", **STRIDED, "num_res_units": 2},
    "AttentionUnet": {"_target_": NETS + "AttentionUnet", **STRIDED},
    "BasicUNet": {"_target_": NETS + "BasicUNet", **IN_OUT, "features": [8, 8, 16, 32, 32, 8]},
    "BasicUNet, ReLU and batch norm": {
        **{"_target_": NETS + "BasicUNet", **IN_OUT, "features": [8, 8, 16, 32, 32, 8]},
        **{"act": "RELU", "norm": "BATCH"},
    },
    "DynUNet": {"_target_": NETS + "DynUNet", **DYNUNET, "filters": [8, 16, 32]},
    "DynUNet with residual blocks": {
        **{"_target_": NETS + "DynUNet", **DYNUNET, "filters": [8, 16, 32]},
        "res_block": True,
    },
    "SegResNet": {"_target_": NETS + "SegResNet", **IN_OUT, "init_filters": 16},
}


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def halved_by_torch_pruning(network: torch.nn.Module, image: torch.Tensor) -> torch.nn.Module:
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.modules.conv._ConvNd)]
    torch_pruning.pruner.MagnitudePruner(
        network,
        image,
        torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[layer for layer in convolutions if layer.out_channels == IN_OUT["out_channels"]],
    ).step()
    return network


def halved_by_us(network: torch.nn.Module, image: torch.Tensor) -> torch.nn.Module:
    return prune_share(network, 0.5, input_shape=image.shape)


def main() -> None:
    given = command_line(__doc__).parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, network_def in NETWORKS.items():
        image = torch.randn((1, 1) + (32,) * network_def["spatial_dims"])
        row = {"network": name}
        for column, halve in {
            f"torch_pruning_{version('torch-pruning')}": halved_by_torch_pruning,
            "prune_share": halved_by_us,
        }.items():
            network = build_network(network_def).eval()
            shape, before = network(image).shape, parameters(network)
            try:
                halved = halve(network, image)
                left = f"{parameters(halved) / before * 100:.0f} %"
                row[column] = left if halved(image).shape == shape else "another output"
            except Exception as error:  # whatever it is, it is what is to be told
                row[column] = f"{type(error).__name__}: {error}".rstrip(".")
        rows.append(row)
    save_or_print(rows, given.output)


if __name__ == "__main__":
    main()
