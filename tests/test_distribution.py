"""What is installed from a wheel does the main job from an empty folder; the reference of the functions can be made."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def _run(*command, **options):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "checkout"  # so that nothing is built inside the real one
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    _run("-m", "build", "--no-isolation", "--outdir", str(folder), str(source))
    return folder


def test_wheel_and_sdist_hold_what_a_run_needs(distributions):
    (wheel,), (sdist,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    bundle = "monai_ccnet/bundles/complexity_guided_compression"
    for name in ("configs/compress.yaml", "configs/overlay/compress.yaml", "configs/metadata.json", "docs/README.md"):
        assert f"{bundle}/{name}" in names
    assert {"monai_ccnet/py.typed", "monai_ccnet/degradation/calibrated/plain_unet/f1.json"} <= names
    assert {f"{bundle}/docs/tutorial.ipynb", f"{bundle}/docs/comparison.md"} <= names
    assert not [name for name in names if re.search(r"/records/|/profiles/|/docs/[a-z]+/|\.jsonl$|\.png$", name)]
    assert wheel.stat().st_size < 500_000
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "monai_ccnet").rglob("*.py")}
    assert modules <= names
    assert not [name for name in names if name.startswith("tests/")]
    with tarfile.open(sdist) as archive:
        assert any(
            name.endswith("bundles/complexity_guided_compression/configs/train.yaml") for name in archive.getnames()
        )


def test_the_main_job_runs_from_an_installed_wheel_in_an_empty_folder(distributions, tmp_path):
    (wheel,) = distributions.glob("*.whl")
    installed, empty, data = tmp_path / "installed", tmp_path / "empty", tmp_path / "data"
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    empty.mkdir()
    listed = {"training": [], "test": []}
    rng = np.random.default_rng(0)
    for part in listed:
        for what in ("image", "label"):
            (data / part / what).mkdir(parents=True)
        for index in range(2):
            mask = np.zeros((40, 40), np.uint8)
            mask[10:30, 10 + index : 30] = 1
            item = {what: f"{part}/{what}/{index}.png" for what in ("image", "label")}
            Image.fromarray((rng.normal(80 + 90 * mask, 10)).clip(0, 255).astype(np.uint8)).save(data / item["image"])
            Image.fromarray(mask).save(data / item["label"])
            listed[part].append(item)
    described = {"name": "squares", "labels": {"0": "background", "1": "square"}, **listed}
    (data / "dataset.json").write_text(json.dumps(described))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = _run(
        "-c", "import monai_ccnet; print(monai_ccnet.bundle_root())", cwd=empty, env=environment
    ).stdout.strip()
    assert Path(where).is_relative_to(installed)
    options = {
        "config_file": f"{where}/configs/compress.yaml",
        "dataset_dir": str(data),
        "output_dir": str(empty / "output"),
        "budget_bytes": "60000",
        "channels": "[8,12,16]",
        "patch_size": "[32,32]",
        "max_epochs": "4",
        "epoch_length": "20",
    }
    _run(
        "-m", "monai.bundle", "run", *(f"--{key}={value}" for key, value in options.items()), cwd=empty, env=environment
    )
    page = (empty / "output" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) >= 3
    for picture in pictures:
        assert min(Image.open(BytesIO(b64decode(picture))).size) > 50
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_the_reference_is_made_as_the_readme_says(tmp_path):
    (command,) = re.findall(r"python (-m pdoc .*)", (ROOT / "README.md").read_text())
    done = _run(*command.split(), cwd=tmp_path)
    assert "Traceback" not in done.stderr
    for module in re.findall(r"monai_ccnet\.(\w+)", command):
        assert len((tmp_path / "site" / "monai_ccnet" / f"{module}.html").read_text()) > 10_000
