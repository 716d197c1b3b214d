"""Imports point down, and no public name hides one of MONAI's."""

import subprocess
import sys
from pathlib import Path

import monai.bundle.config_item
import pytest

ROOT = Path(__file__).parents[1]


def test_import_contracts():
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, monai_ccnet; print(sorted({'monai', 'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "PlainUNet",
        "CUMedVision",
        "UCUNet",
        "SqueezeUNet",
        "DeepSupervision",
        "Widths",
        "NetworkFamily",
        "NetworkSize",
        "ComplexityProfile",
        "Measure",
        "Prediction",
        "DegradationModel",
        "DegradationPoint",
        "DiskBudget",
        "AccuracyFloor",
        "CompressionPlan",
        "InfeasibleConstraintError",
        "Latency",
        "LatencyBudget",
        "LatencyComparison",
        "TrialRecord",
        "Rival",
        "SegmentedImage",
        "ChannelGroup",
        "Place",
        "Merge",
        "SensitivityRow",
        "ExportedNetwork",
        "Format",
        "Value",
        "ImageComplexity",
        "ImageComplexityd",
        "ForegroundDensity",
        "ForegroundDensityd",
        "LabelComplexity",
        "LabelComplexityd",
        "CheckBudget",
        "LogPlan",
        "RecordTrial",
    ],
)
def test_no_class_has_a_name_of_monais(name):
    found = monai.bundle.config_item.ComponentLocator().get_component_module_name(name)
    found = [found] if isinstance(found, str) else found or []
    assert not [module for module in found if module.startswith("monai.")]
