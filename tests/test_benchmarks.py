"""The scripts behind the result pages: they are run by hand, so a name that moved would be noticed late."""

import ast
import importlib
import runpy
import sys
from pathlib import Path

import pytest

from monai_ccnet import bundle_root

FOLDER = Path(__file__).parent / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
DOCS = bundle_root() / "docs"


@pytest.fixture
def run(monkeypatch):
    """Run a script as the command line does; what it exits with is raised."""

    def with_arguments(script, *arguments):
        monkeypatch.syspath_prepend(FOLDER)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(FOLDER / script), run_name="__main__")

    return with_arguments


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_names_that_a_script_imports_are_there(script):
    tree = ast.parse((FOLDER / script).read_text(encoding="utf-8"), script)
    compile(tree, script, "exec")
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        names = {alias.name for alias in node.names}
        if node.module.split(".")[0] == "monai_ccnet":
            module = importlib.import_module(node.module)
            assert not [name for name in names if not hasattr(module, name)], node.module
        elif f"{node.module}.py" in SCRIPTS:
            beside = ast.parse((FOLDER / f"{node.module}.py").read_text(encoding="utf-8")).body
            defined = {each.name for each in beside if isinstance(each, (ast.FunctionDef, ast.ClassDef))}
            assigned = {
                name.id
                for each in beside
                if isinstance(each, ast.Assign)
                for name in ast.walk(each.targets[0])
                if isinstance(name, ast.Name)
            }
            assert names <= defined | assigned


def test_the_tables_of_the_calibration_are_those_of_its_records(run):
    with pytest.raises(SystemExit) as end:
        run("ship_calibration.py", "--check")
    assert end.value.code == 0


@pytest.mark.parametrize(
    ("script", "runs", "table"),
    [
        ("compare_allocations.py", ["comparison/allocation.csv"], "comparison/allocation_families.csv"),
        ("compare_recipes.py", ["comparison/recipes.csv"], "calibration/recipes.csv"),
        (
            "summarise_comparisons.py",
            [f"comparison/{name}.csv" for name in ("epithelium", "mni_gm", "bacteria")],
            "comparison/methods.csv",
        ),
    ],
)
def test_the_tables_of_the_pages_are_those_of_the_runs(script, runs, table, run, tmp_path, capsys):
    runs, committed = [DOCS / path for path in runs], (DOCS / table).read_text(encoding="utf-8")
    run(script, *runs)
    assert capsys.readouterr().out == committed
    run(script, *runs, "-o", tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == committed


def test_a_table_never_takes_the_place_of_a_page(run, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("what people wrote")
    with pytest.raises(SystemExit) as end:
        run("compare_recipes.py", DOCS / "comparison" / "recipes.csv", "-o", page)
    assert end.value.code == 2
    assert f"{page} is not a CSV file" in capsys.readouterr().err
    assert page.read_text() == "what people wrote"


@pytest.mark.parametrize(
    "script",
    [
        "compare_allocations.py",
        "compare_recipes.py",
        "layer_sensitivity.py",
        "measure_table.py",
        "summarise_comparisons.py",
    ],
)
def test_a_script_that_needs_arguments_says_so(script, run, capsys):
    with pytest.raises(SystemExit) as end:
        run(script)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: {script}")
