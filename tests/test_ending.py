"""How a process ends: the cause in its last line, the traceback in a file."""

import os
import signal
import subprocess
import sys
import time

import pytest

import monai_ccnet
from monai_ccnet.ending import cause_of, interruptible, keep_traceback

CONFIG = str(monai_ccnet.bundle_root() / "configs" / "train.yaml")
INTERRUPTED = """
import os, signal, sys, time
from ignite.engine import Engine, Events
import monai_ccnet
from monai_ccnet.ending import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background has not
trainer = Engine(lambda engine, batch: batch)
trainer.optimizer = None

@trainer.on(Events.EPOCH_COMPLETED(once=3))
def signalled(engine):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(5)

with interruptible():
    if sys.argv[2] == "training":
        trainer.run([0], max_epochs=7)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(5)
"""


@pytest.mark.parametrize(
    ("number", "what", "said"),
    [
        (signal.SIGINT, "training", "interrupted in epoch 3 of 7; the same command goes on from there."),
        (signal.SIGTERM, "training", "interrupted in epoch 3 of 7; the same command goes on from there."),
        (signal.SIGTERM, "nothing", "interrupted. What is done is kept: the same command goes on from there."),
    ],
)
def test_an_interruption_says_how_to_go_on_and_no_more(number, what, said):
    command = [sys.executable, "-c", INTERRUPTED, str(int(number)), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert done.stderr.strip().splitlines()[-1] == f"monai-ccnet: {said}"
    assert "Traceback" not in done.stderr


def test_handlers_of_others_stay_and_ours_go():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup does
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_memory_that_ran_out_comes_with_what_helps():
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ):
        assert cause_of(error).endswith("try a smaller --patch_size, --batch_size, --num_workers or --cache_rate.")
    assert cause_of(KeyError()) == "KeyError: without a message"


def test_a_traceback_goes_to_the_folder_or_to_a_temporary_one(tmp_path):
    try:
        raise ValueError("why")
    except ValueError as error:
        said = keep_traceback(error, tmp_path)
        elsewhere = keep_traceback(error, tmp_path / "missing")
    assert said == f" (traceback: {tmp_path / 'traceback.log'})"
    assert "test_ending.py" in (tmp_path / "traceback.log").read_text()
    assert f"traceback-{os.getpid()}.log" in elsewhere
    os.unlink(elsewhere.split(": ")[1].rstrip(")"))


@pytest.mark.parametrize(("number", "command"), [(signal.SIGINT, "monai.bundle"), (signal.SIGTERM, "monai_ccnet")])
def test_a_training_that_is_interrupted_says_so_last_and_goes_on(number, command, tmp_path):
    given = ["--output_dir", str(tmp_path), "--max_epochs", "2000", "--channels", "[4,4]", "--epoch_length", "2"]
    words = {"monai_ccnet": ["train"], "monai.bundle": ["run", "--config_file", CONFIG]}[command]
    with subprocess.Popen(
        [sys.executable, "-m", command, *words, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a process in the background ignores
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("training_checkpoint_*.pt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    last = said.strip().splitlines()[-1]
    assert process.returncode == 128 + number
    assert last.startswith("monai-ccnet: interrupted in epoch ")
    assert last.endswith(" of 2000; the same command goes on from there.")
    assert "Traceback" not in said
    assert list(tmp_path.glob("training_checkpoint_*.pt"))
    assert not list(tmp_path.glob("*.partial"))


def test_in_monais_own_command_the_traceback_is_in_the_file_that_the_last_line_names(tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", CONFIG, "--output_dir", str(tmp_path)]
    command += ["--patch_size", "[32]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("The cause: ValueError: patch_size must hold 2 lengths")
    assert last.endswith(f" (traceback: {tmp_path / 'traceback.log'})")
    assert "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "traceback.log").read_text()
    shown = subprocess.run([*command, "--traceback", "True"], capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr
    assert shown.stderr.strip().splitlines()[-1] == last.partition(" (traceback")[0]
