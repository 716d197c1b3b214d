"""Imports point down, and no public name hides one of MONAI's."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import monai.bundle.config_item

import monai_ccnet

ROOT = Path(__file__).parents[1]


def test_import_contracts():
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, monai_ccnet; print(sorted({'monai', 'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_public_name_is_one_of_monais():
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(monai_ccnet.__path__, "monai_ccnet.")
    ]
    public = {
        name: getattr(module, name)
        for module in modules
        for name in getattr(module, "__all__", ())
        if getattr(getattr(module, name), "__module__", "").startswith("monai_ccnet")
    }
    assert {"PlainUNet", "NetworkFamily", "TrialRecord", "RecordTrial", "ImageComplexityd", "compress"} <= set(public)
    locator = monai.bundle.config_item.ComponentLocator()
    for name in public:
        found = locator.get_component_module_name(name)
        found = [found] if isinstance(found, str) else found or []
        assert not [module for module in found if module.startswith("monai.")], name
