"""The README's Python example runs and prints what it says."""

import re
from pathlib import Path

from matplotlib.image import imread

from monai_ccnet.__main__ import settings_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_example(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(example, names)
    printed = capsys.readouterr().out
    claimed = "-".join(map(str, names["plan"].channels))
    assert f"channels {claimed}," in README
    assert f"{names['plan'].compression:.0f}x fewer weights" in README
    assert f"# {names['floor'].channels}" in README
    assert str(names["floor"].channels) in printed
    (shown,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    drawn, kept = imread(tmp_path / "plan.png"), imread(ROOT / shown)
    assert drawn.shape == kept.shape
    assert abs(drawn.mean() - kept[..., : drawn.shape[-1]].mean()) < 0.02


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_every_setting_that_is_named_is_one_of_the_main_job():
    settings = set(re.findall(r"`--(\w+)", README))
    assert {"budget_bytes", "min_score", "layerwise", "channels"} <= settings
    assert settings <= {name for name, _, _ in settings_of("compress")}
