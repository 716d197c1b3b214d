"""Kill jobs of the bundle for real, at each step in the file system or at random, and compare what they end with.

    python tests/benchmarks/kill_jobs.py FOLDER --steps train compress calibrate compare
    python tests/benchmarks/kill_jobs.py FOLDER --random 200 --several 20

Each job is a forked process that dies by SIGKILL; another one then goes on. ``--several`` begins two or three processes
at once on one folder, kills one of them, and waits for the others.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bundles"))

import test_kills as jobs


def begin(verb, data, folder, number=None):
    """Fork a process that does a job, and kills itself before the step of a number; return its id."""
    process = os.fork()
    if process:
        return process
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)

    def act(steps):
        if number is not None and len(steps.steps) > number:
            os.kill(os.getpid(), signal.SIGKILL)

    jobs.STEPS.watch(folder, act)
    status = 99
    try:
        status = jobs.run(verb, data, folder)
    finally:
        sys.stdout.flush()
        os._exit(status)


def end_of(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def check(verb, data, folder, expected, told):
    """Let a job go on to its end, and compare what it left."""
    status = end_of(begin(verb, data, folder))
    found = jobs.results(folder)
    if status or found != expected:
        print(f"{verb} {told}: status {status}, other: {[key for key in expected if found.get(key) != expected[key]]}")
        return 1
    shutil.rmtree(folder)
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", nargs="*", default=[])
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--several", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    data, rng = jobs.make_data(given.folder / "data"), random.Random(0)
    verbs = given.steps or ["train", "compress", "calibrate", "compare"]
    expected, seconds = {}, {}
    for verb in verbs:
        start = time.monotonic()
        assert end_of(begin(verb, data, given.folder / verb)) == 0
        expected[verb], seconds[verb] = jobs.results(given.folder / verb), time.monotonic() - start
    for verb in given.steps:
        kills = wrong = 0
        while True:
            folder = given.folder / f"{verb}-{kills}"
            if end_of(begin(verb, data, folder, kills)) != -signal.SIGKILL:
                break
            wrong += check(verb, data, folder, expected[verb], f"before step {kills}")
            kills += 1
        print(f"{verb}: killed before each of {kills} steps, {wrong} ended otherwise than undisturbed", flush=True)
    wrong = kills = 0
    for number in range(given.random):
        verb, folder = rng.choice(verbs), given.folder / f"random-{number}"
        for _ in range(rng.randint(1, 3)):
            process = begin(verb, data, folder)
            time.sleep(rng.uniform(0, seconds[verb]))
            os.kill(process, signal.SIGKILL)
            kills += end_of(process) == -signal.SIGKILL
        wrong += check(verb, data, folder, expected[verb], f"random {number}")
    if given.random:
        print(f"{kills} random kills in {given.random} jobs, {wrong} ended otherwise than undisturbed", flush=True)
    wrong = 0
    for number in range(given.several):
        verb, folder = rng.choice(verbs), given.folder / f"several-{number}"
        processes = [begin(verb, data, folder) for _ in range(rng.randint(2, 3))]
        time.sleep(rng.uniform(0, seconds[verb]))
        os.kill(processes[0], signal.SIGKILL)
        ends = [end_of(process) for process in processes][1:]
        wrong += any(ends)
        wrong += check(verb, data, folder, expected[verb], f"several {number}, ends {ends}")
    if given.several:
        print(f"{given.several} jobs by two or three processes of which one was killed, {wrong} ended otherwise")


if __name__ == "__main__":
    main()
