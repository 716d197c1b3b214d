"""The README's Python example runs and prints what it says."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_example(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(example, names)
    printed = capsys.readouterr().out
    claimed = "-".join(map(str, names["plan"].channels))
    assert f"channels {claimed}," in README
    assert f"{names['plan'].compression:.0f}x fewer weights" in README
    assert f"# {names['floor'].channels}" in README
    assert str(names["floor"].channels) in printed


def test_every_setting_in_the_table_is_an_id_of_the_main_config():
    config = (Path(__file__).parents[1] / "bundles/complexity_guided_compression/configs/compress.yaml").read_text()
    settings = set(re.findall(r"`--(\w+)", README))
    assert {"budget_bytes", "min_score", "layerwise", "channels"} <= settings
    assert not [name for name in settings if not re.search(rf"^{name}:", config, flags=re.MULTILINE)]
