"""A public data set, converted, through the whole bundle."""

import json

import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image

import monai_ccnet
from monai_ccnet.constraints import CompressionPlan
from monai_ccnet.data.public import isic_2017


def test_colour_images_are_compressed_for_from_the_folder_as_distributed(tmp_path, quick):
    rng, source, grid = np.random.default_rng(0), tmp_path / "ISIC", np.indices((40, 48))
    for index, part in enumerate(["Training"] * 4 + ["Validation"] + ["Test_v2"] * 2):
        mask = ((grid - rng.uniform(12, 28, (2, 1, 1))) ** 2).sum(axis=0) < 80
        pixels = rng.normal(np.where(mask[..., None], (90, 60, 40), (200, 170, 150)), 8).clip(0, 255).astype(np.uint8)
        images, masks = source / f"ISIC-2017_{part}_Data", source / f"ISIC-2017_{part}_Part1_GroundTruth"
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(images / f"ISIC_{index:07}.jpg")
        Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"ISIC_{index:07}_segmentation.png")
    folder = isic_2017(source, tmp_path / "melanoma", image_size=(32, 40))
    output_dir = tmp_path / "output"
    overrides = {
        **quick,
        "max_epochs": 5,
        "dataset_dir": str(folder),
        "output_dir": str(output_dir),
        "patch_size": [32, 32],
    }
    workflow = ConfigWorkflow(
        str(monai_ccnet.bundle_root() / "configs" / "compress.yaml"),
        workflow_type="train",
        budget_bytes=45_000,
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    plan = CompressionPlan.load(output_dir / "plan.json")
    report = json.loads((output_dir / "report.json").read_text())
    assert plan.family.network_def["in_channels"] == 3
    assert (plan.complexity.dataset, plan.complexity.count) == ("melanoma", 4)
    assert report["sizes"]["file_bytes"] == (output_dir / "model.pt").stat().st_size <= 45_000
    assert report["achieved"]["f1"] > 0.7
