"""The configs hold settings, not programs, and each keeps to its layer."""

import ast
import importlib
import re

import pytest
from monai.bundle import ConfigParser

import monai_ccnet
from monai_ccnet.__main__ import VERBS, settings_of, settings_page
from monai_ccnet.configs import load_config
from monai_ccnet.settings import SETTINGS, check_value

CONFIGS = monai_ccnet.bundle_root() / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
# What runs them may be named by them, and nothing above it: in the order of imports, the lowest first.
LAYERS = [
    ["files", "settings"],
    ["ending", "locks", "names", "scales", "starting"],
    ["configs"],
    ["values"],
    ["data", "degradation", "networks"],
    ["complexity"],
    ["transforms", "auto3dseg"],
    ["constraints"],
    ["records"],
    ["handlers"],
    ["training"],
    ["calibration", "posttraining"],
    ["figures", "reporting", "comparison"],
    ["bundle"],
]
RUN_BY = dict.fromkeys(FILES, "training") | dict.fromkeys(
    [
        "compress.yaml",
        "overlay/compress.yaml",
        "overlay/planned.yaml",
        "measure.yaml",
        "calibrate.yaml",
        "compare.yaml",
        "search.yaml",
        "audit.yaml",
        "store.yaml",
        "nnunet.yaml",
        "auto3dseg.yaml",
    ],
    "bundle",
)


def _texts(config):
    if isinstance(config, str):
        yield config
    elif isinstance(config, (dict, list)):
        for each in config.values() if isinstance(config, dict) else config:
            yield from _texts(each)


def _expressions(name):
    config = ConfigParser.load_config_file(str(CONFIGS / name))
    texts = [text for text in _texts(config) if text.startswith("$")]
    return [text for text in texts if not text.startswith("$import ")]


def _named(name):
    """Return the dotted names of this package that a config names, in targets and in expressions."""
    config = ConfigParser.load_config_file(str(CONFIGS / name))
    return {found for text in _texts(config) for found in re.findall(r"monai_ccnet(?:\.\w+)+", text)}


@pytest.mark.parametrize("name", FILES)
def test_no_expression_is_a_program(name):
    for text in _expressions(name):
        assert len(text) <= 120, text
        tree = ast.parse(re.sub(r"@([\w#:]+)", lambda found: re.sub(r"\W", "_", found[1]), text[1:]))
        programs = (ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)
        assert not [node for node in ast.walk(tree) if isinstance(node, programs)], text


@pytest.mark.parametrize("name", FILES)
def test_a_config_names_what_is_there_and_nothing_above_what_runs_it(name):
    height = {module: number for number, layer in enumerate(LAYERS) for module in layer}
    for dotted in _named(name):
        parts = dotted.split(".")
        if parts[1] != "bundle_root":
            assert height[parts[1]] <= height[RUN_BY[name]], f"{name} names {dotted}"
        found = importlib.import_module("monai_ccnet")
        for number, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:number]))
            found = getattr(found, part)


def test_the_layers_are_those_of_the_imports():
    text = (monai_ccnet.bundle_root().parents[1] / "pyproject.toml").read_text()
    listed = re.search(r"exhaustive = true\nlayers = \[(.*?)\n\]", text, flags=re.DOTALL)[1]
    layers = [line.split(" | ") for line in re.findall(r'"(.*?)"', listed)]
    assert layers[::-1][:-1] == LAYERS or [sorted(each) for each in layers[::-1][:-1]] == [sorted(e) for e in LAYERS]


@pytest.mark.parametrize("name", FILES)
def test_every_plain_setting_is_in_the_table_and_as_it_says(name):
    config = ConfigParser.load_config_file(str(CONFIGS / name))
    for key, value in config.items():
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            continue
        if not isinstance(value, (dict, list)) or key in SETTINGS:
            assert key in SETTINGS, f"{name} has {key}"
            assert check_value(key, value) == value


def test_a_config_is_parsed_once_and_a_changed_file_is_seen(tmp_path, monkeypatch):
    file, loads = tmp_path / "a.yaml", []
    load = ConfigParser.load_config_file
    monkeypatch.setattr(ConfigParser, "load_config_file", lambda path: loads.append(path) or load(path))
    for text in ("a: [1]", "a: [2]"):
        file.write_text(text)
        load_config(file)["a"].append(3)  # of a copy
        assert load_config(file) == load(file)
    assert len(loads) == 2


def test_every_setting_of_the_table_is_one_of_a_verb_or_an_overlay():
    known = {name for verb in VERBS for name, _, _ in settings_of(verb)}
    assert set(SETTINGS) - known == set()


def test_the_docs_table_is_made_from_the_settings():
    page = (monai_ccnet.bundle_root() / "docs" / "settings.md").read_text()
    assert page == settings_page(), "write docs/settings.md again: its first lines say how"
