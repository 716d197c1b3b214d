"""The recipes in the configs: what they set, what the loader gives, and which images are scored."""

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data.meta_obj import get_track_meta
from monai.handlers import ValidationHandler

import monai_ccnet

CONFIGS = monai_ccnet.bundle_root() / "configs"
TINY = {"max_epochs": 1, "epoch_length": 2, "channels": [8, 12, 16]}


def begin(dataset_dir, output_dir, *names, **overrides):
    places = {"dataset_dir": str(dataset_dir), "output_dir": str(output_dir)}
    files = [str(CONFIGS / name) for name in names or ("train.yaml",)]
    workflow = ConfigWorkflow(files, workflow_type="train", **TINY, **places, **overrides)
    workflow.initialize()
    return workflow.parser.get_parsed_content


def test_the_recipe_of_the_paper_is_cross_entropy_at_a_fixed_rate_and_full_resolution(large_2d, tmp_path):
    found = begin(large_2d, tmp_path, recipe="paper")
    assert (found("working_scale"), list(found("patch_size")), found("activation")) == (1, [128, 128], "RELU")
    assert found("loss").lambda_dice == 0
    assert any(isinstance(module, torch.nn.ReLU) for module in found("network").modules())
    schedule, first = found("lr_scheduler"), found("optimizer").param_groups[0]["lr"]
    for _ in range(3):
        found("optimizer").step()
        schedule.step()
    assert schedule.get_last_lr() == [first] == [found("learning_rate")]


def test_the_planned_recipe_follows_from_the_images(large_2d, tmp_path):
    found = begin(large_2d, tmp_path, scale=2)
    assert list(found("patch_size")) == [160, 128]
    assert found("loss").lambda_dice == 1
    assert any(isinstance(module, torch.nn.LeakyReLU) for module in found("network").modules())
    assert found("used_recipe")["precision"] in ("float32", "bfloat16")


def test_the_loader_gives_plain_tensors_and_metadata_are_tracked_elsewhere(disks_2d, tmp_path):
    found = begin(disks_2d, tmp_path, "train.yaml", "evaluate.yaml", scale=1)
    batch = next(iter(found("train#dataloader")))
    assert type(batch["image"]) is type(batch["label"]) is torch.Tensor
    assert batch["image"].shape == (found("batch_size"), 1, *found("patch_size"))
    assert get_track_meta()
    assert not found("train#dataset").copy_cache
    assert "filename_or_obj" in next(iter(found("test#dataloader")))["image"].meta


def test_a_cache_is_copied_where_something_else_than_ours_follows(disks_2d, tmp_path):
    found = begin(disks_2d, tmp_path, scale=1, **{"train#preprocessing#transforms": "$@train#deterministic_transforms"})
    assert found("train#dataset").copy_cache


@pytest.mark.parametrize(("symmetry", "positions"), [("all", 8), ("mirror", 2), ("none", 1)])
def test_symmetry_says_how_images_are_flipped_and_turned(disks_2d, tmp_path, symmetry, positions):
    found = begin(disks_2d, tmp_path, symmetry=symmetry, patch_size=[32, 32])
    item = {key: torch.arange(32 * 32.0).reshape(1, 32, 32) for key in ("image", "label")}
    patches = [found("train#augmentation")(item)["image"] for _ in range(200)]
    assert len({tuple(patch.flatten().tolist()) for patch in patches}) == positions


def test_where_test_images_judge_no_training_image_is_scored(disks_2d, tmp_path):
    for names, count in ((("train.yaml", "evaluate.yaml"), 0), (("train.yaml",), 1)):
        found = begin(disks_2d, tmp_path / str(count), *names, scale=1)
        handlers = found("train#handlers")
        assert sum(isinstance(each, ValidationHandler) for each in handlers) == count
    assert len(found("val_datalist")) == 4  # of six, by which it is seen whether the network learns
