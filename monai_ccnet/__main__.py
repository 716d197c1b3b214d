"""The command ``monai-ccnet``: each verb runs the bundle config of its name, and nothing more."""

from __future__ import annotations

import ast
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_ccnet import __version__
from monai_ccnet.settings import SETTINGS
from monai_ccnet.starting import import_monai

__all__ = ["VERBS", "main", "settings_of", "settings_page", "settings_table"]

# The configs of each verb, the lowest first; the last is the one of its name.
VERBS: dict[str, tuple[str, ...]] = {
    "compress": ("train.yaml", "evaluate.yaml", "overlay/compress.yaml", "tracked.yaml", "compress.yaml"),
    "search": (
        "train.yaml",
        "evaluate.yaml",
        "overlay/compress.yaml",
        "tracked.yaml",
        "compress.yaml",
        "search.yaml",
    ),
    "measure": ("measure.yaml",),
    "train": ("train.yaml",),
    "evaluate": ("train.yaml", "evaluate.yaml"),
    "infer": ("inference.yaml",),
    "calibrate": ("calibrate.yaml",),
    "compare": ("compare.yaml",),
    "audit": ("audit.yaml",),
    "store": ("store.yaml",),
    "nnunet": ("nnunet.yaml",),
    "auto3dseg": ("auto3dseg.yaml",),
}
_DOES = {
    "compress": "measure, plan under a constraint, train the narrowed network, evaluate it, report",
    "search": "find the smallest network that is nearly as good as any wider one on your images, and train it",
    "measure": "measure the complexity of a data set",
    "train": "train the full-size network, or any other",
    "evaluate": "score the trained network on the test images; the planned one where the output folder holds a plan",
    "infer": "segment images with the planned network",
    "calibrate": "measure how fast a network loses accuracy on your own data sets",
    "compare": "train every method at equal budgets, and tabulate",
    "audit": "say what the network of a bundle needs and can be narrowed to, without data or training: audit FOLDER",
    "store": "write the weights of a bundle at fewer bits, and say what that changes: store FOLDER",
    "nnunet": "write a narrower plans file for nnU-Net, which trains it without an edit: nnunet PLANS.json",
    "auto3dseg": "write a narrower copy of an algorithm of Auto3DSeg, whose scripts train it: auto3dseg FOLDER",
}
_FLAGS = {
    "--traceback": ("traceback", True),
    "--no-wait": ("wait", False),
    "--json": ("json", True),
}  # which need no value
_NAMED_FIRST = {  # which need no name
    "audit": "--bundle_dir",
    "store": "--bundle_dir",
    "nnunet": "--plans",
    "auto3dseg": "--bundle_dir",
}
_WORDS = {"true": True, "false": False, "null": None, "none": None}


def settings_of(verb: str) -> Iterator[tuple[str, str, str]]:
    """Return the settings of a verb: name, default and meaning, in the order of its configs, its own first."""
    from monai.bundle.config_parser import ConfigParser

    from monai_ccnet.configs import config_file

    defaults: dict[str, Any] = {}
    for name in reversed(VERBS[verb]):
        for key, value in ConfigParser.load_config_file(str(config_file(name))).items():
            if key in SETTINGS:
                defaults.setdefault(key, value)
    for key, value in defaults.items():
        computed = isinstance(value, str) and value[:1] in ("$", "@")
        yield key, "computed" if computed else str(value), SETTINGS[key].meaning


def settings_table(verb: str) -> str:
    """Return the settings of a verb as a Markdown table: the docs' own.

    >>> print(settings_table("infer").splitlines()[0])
    | setting | meaning | default |
    """
    rows = [f"| `--{name}` | {meaning} | `{default}` |" for name, default, meaning in settings_of(verb)]
    return "\n".join(["| setting | meaning | default |", "|---|---|---|", *rows])


def settings_page() -> str:
    """Return the docs' page of settings, ``docs/settings.md``."""
    head = """# Settings

Every verb of `monai-ccnet` runs the bundle config of its name, and takes these settings as `--name value`. The same ids
are taken by `python -m monai.bundle run --config_file .../NAME.yaml`. `computed` defaults follow from the data set or
the machine; the config shows how. Any other id of the configs is a setting too, such as `--network_def::act`. A name
that no config knows is refused with the nearest one that is known, before anything runs, and so is a value of another
kind or out of range.

This page is written by
`python -c "from monai_ccnet.__main__ import settings_page; print(settings_page(), end='')" > settings.md`.
"""
    parts = [f"## {verb}\n\n{does.capitalize()}.\n\n{settings_table(verb)}\n" for verb, does in _DOES.items()]
    return "\n".join([head, *parts])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb with its settings, and return the status that the process should exit with.

    Args:
        arguments: words of the command line without the name of the program.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    verb = words.pop(0)
    if verb not in VERBS:
        return _failed(f"there is no {verb!r}: choose one of {', '.join(VERBS)}.")
    if {"-h", "--help"} & set(words):
        print(_help(verb))
        return 0
    if verb in _NAMED_FIRST and words and not words[0].startswith("--"):
        words[:1] = [_NAMED_FIRST[verb], words[0]]
    try:
        given = dict(_given(words))
    except ValueError as error:
        return _failed(str(error))
    return _run(verb, given)


def _run(verb: str, given: dict[str, Any]) -> int:
    import_monai()
    from monai.bundle.workflows import ConfigWorkflow

    from monai_ccnet.configs import config_file
    from monai_ccnet.ending import cause_of, interruptible, keep_traceback

    options = {name: given.pop(name) for name in ("tracking", "traceback") if name in given}
    kind = "infer" if verb == "infer" else "train"
    output_dir = Path(given.get("output_dir", "output"))
    logger = logging.getLogger("monai.bundle.workflows")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it wonders at configs in two folders
        names = [*VERBS[verb]]
        if verb == "evaluate" and (output_dir / "plan.json").is_file() and not (output_dir / "run.json").is_file():
            names.append("planned.yaml")
        files = [str(config_file(name)) for name in names]
        with interruptible():
            workflow = ConfigWorkflow(files, workflow_type=kind, tracking=options.get("tracking"), **given)
            logger.setLevel(level)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except KeyboardInterrupt:
        return _failed("interrupted. What is done is kept: the same command goes on from there.", 130)
    except SystemExit as end:  # a network that has not learned, or an interruption
        return int(end.code or 0)
    except Exception as error:
        if options.get("traceback"):
            traceback.print_exception(error)
            return _failed(cause_of(error))
        return _failed(cause_of(error) + keep_traceback(error, output_dir))
    finally:
        logger.setLevel(level)
    return 0


def _given(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Return the settings of a command line with their values.

    >>> dict(_given(["--budget_bytes", "250000", "--layerwise=false", "--output_dir", "2026"]))
    {'budget_bytes': 250000, 'layerwise': False, 'output_dir': '2026'}
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ValueError(f"{word!r} is no setting: settings are given as --name value.")
        if word in _FLAGS:
            flag, meant = _FLAGS[word]
            says = _WORDS.get(rest[0].lower()) if rest else None
            if isinstance(says, bool):
                rest.pop(0)
            yield flag, meant if says is not False else not meant
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value.")
            value = rest.pop(0)
        yield name, _value(name, value)


def _value(name: str, text: str) -> Any:
    kind = SETTINGS[name].kind if name in SETTINGS else "any"
    if kind.endswith(" or none") and text.lower() in ("null", "none"):
        return None
    if kind.startswith("path"):  # MONAI would read '#' in text as a step into the config
        return Path(text) if "#" in text or "::" in text else text
    if kind.startswith("text"):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _overview() -> str:
    verbs = [f"  {verb:<10} {does}" for verb, does in _DOES.items()]
    return "\n".join(
        [
            "usage: monai-ccnet VERB --setting value ...",
            "",
            "The smallest MONAI network that still segments your images.",
            "",
            *verbs,
            "",
            "monai-ccnet VERB --help lists its settings.",
        ]
    )


def _help(verb: str) -> str:
    lines = [f"usage: monai-ccnet {verb} --setting value ...", "", f"{_DOES[verb]}.", ""]
    for name, default, meaning in settings_of(verb):
        lines += [f"  --{name}", f"      {meaning} (default: {default})"]
    further = (
        "Any other id of its configs is a setting too, such as --network_def::act. --tracking mlflow tracks the run."
    )
    return "\n".join([*lines, "", further, "--traceback shows where an error came from."])


def _failed(words: str, status: int = 1) -> int:
    print(f"monai-ccnet: {words}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
