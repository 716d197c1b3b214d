"""The files about the project agree with the package."""

import configparser
import json
import re
from pathlib import Path

import pytest
import yaml

import monai_ccnet

ROOT = Path(__file__).parents[1]


def _metadata():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser["metadata"]


def test_the_workflow_runs_ci_on_every_python_of_the_classifiers():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]["test"]
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", _metadata()["classifiers"])
    assert named
    assert job["strategy"]["matrix"]["python-version"] == named  # text: 3.10 unquoted would be 3.1
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == monai_ccnet.__version__
    assert (citation["title"], citation["license"]) == (_metadata()["name"], _metadata()["license"])
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert citation["preferred-citation"]["title"] in readme


def test_the_bundle_states_its_intended_use():
    configs = ROOT / "bundles/complexity_guided_compression/configs"
    stated = json.loads((configs / "metadata.json").read_text())["intended_use"]
    assert "not a medical device" in stated


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_the_names_in_the_texts_are_there(name):
    text = (ROOT / ".github" / name).read_text()
    paths = re.findall(r"`((?:monai_ccnet|tests)/[\w/.]+)`", text)
    assert not [path for path in paths if not (ROOT / path).exists()]
