"""One process at a time in a folder."""

import gc
import json
import os
import subprocess
import sys
import threading

import pytest
from filelock import FileLock, Timeout

from monai_ccnet.files import atomically
from monai_ccnet.locks import held, hold, release


def test_a_lock_is_held_until_it_is_released_and_nests(tmp_path):
    hold(tmp_path)
    gc.collect()
    other = FileLock(tmp_path / ".lock", is_singleton=False)
    with held(tmp_path), pytest.raises(Timeout):
        other.acquire(timeout=0)
    with pytest.raises(Timeout):
        other.acquire(timeout=0)
    release(tmp_path)
    with other.acquire(timeout=0):
        assert other.is_locked
    release(tmp_path)  # twice is harmless


def test_it_is_released_after_an_error(tmp_path):
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with FileLock(tmp_path / ".lock", is_singleton=False).acquire(timeout=0):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


WORK = """
import sys
from monai_ccnet.locks import held
with held(sys.argv[1]):
    print("begun", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        yield process
        process.communicate("\n")


def test_who_works_in_a_folder_is_said(tmp_path, other_process, capsys):
    with pytest.raises(Timeout), held(tmp_path, wait=False):
        pass
    assert json.loads((tmp_path / ".holder.json").read_text())["process"] == other_process.pid
    threading.Timer(0.3, lambda: other_process.stdin.write("\n") and other_process.stdin.flush()).start()
    with held(tmp_path):
        assert f"Waiting for process {other_process.pid} on " in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"process": "x"}', '{"process": 1, "host": 2}'])
def test_nonsense_about_who_works_is_not_believed(content, tmp_path, other_process, capsys):
    (tmp_path / ".holder.json").write_text(content)
    threading.Timer(0.3, lambda: other_process.stdin.write("\n") and other_process.stdin.flush()).start()
    with held(tmp_path):
        assert "Waiting for another process, which works in" in capsys.readouterr().out


def test_what_a_killed_process_left_is_removed_where_nobody_works(tmp_path):
    for place in (tmp_path, tmp_path / "profiles", tmp_path / "trial"):
        place.mkdir(exist_ok=True)
        (place / ".model.pt.abc.partial").write_bytes(b"x")
        (place / ".segmentation.abc.partial").mkdir()
        (place / "mine.partial").write_bytes(b"x")
    (tmp_path / "trial" / ".lock").touch()
    with held(tmp_path), atomically(tmp_path / "model.pt") as file:
        file.write(b"new")
        with held(tmp_path):  # what this process is writing stays
            assert len(list(tmp_path.glob(".model.pt.*.partial"))) == 1
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if ".partial" in path.name)
    kept = [f"trial{os.sep}.model.pt.abc.partial", f"trial{os.sep}.segmentation.abc.partial"]
    assert left == sorted(["mine.partial", *(f"{each}{os.sep}mine.partial" for each in ("profiles", "trial")), *kept])
