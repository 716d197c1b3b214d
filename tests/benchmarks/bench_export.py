"""Export and quantize the U-Net in full and as Table 6 narrows it: bytes of the files, and latency in turns.

python tests/benchmarks/bench_export.py
"""

import tempfile
from pathlib import Path

import torch

from monai_ccnet.networks import build_network, compare_latency, save_weights
from monai_ccnet.posttraining import export_network, load_exported, quantize_onnx

SHAPE = (1, 1, 128, 128)
CHANNELS = {"full": [64, 128, 256, 512, 1024], "uniform": [4, 8, 16, 32, 65], "layer-wise": [20, 19, 25, 29, 33]}


def main() -> None:
    """Print a table of bytes, then one of latencies."""
    programs = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, channels in CHANNELS.items():
            network = build_network({"_target_": "monai_ccnet.networks.PlainUNet", "channels": channels}).eval()
            path = Path(folder, name)
            written = [save_weights(network, path, bits) for bits in (32, 16, 8)]
            exported = export_network(network, path, SHAPE)
            images = torch.randn(4, *SHAPE[1:]).split(1)
            written += [exported.file_bytes, quantize_onnx(path, f"{path}.int8", images)]
            print(f"{name}: bytes at 32, 16, 8 bits, of ONNX, of ONNX at int8:", *(f"{each:,}" for each in written))
            programs[f"{name}, torch"] = network
            programs[f"{name}, ONNX"] = load_exported(path)
            programs[f"{name}, ONNX at int8"] = load_exported(f"{path}.int8")
        print(compare_latency(programs, SHAPE, min_runs=9))


if __name__ == "__main__":
    main()
