"""The report of a run as a self-contained HTML page with numbers, text and figures."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from monai_ccnet.constraints import AccuracyFloor, CompressionPlan
from monai_ccnet.data.reading import DataReading
from monai_ccnet.files import atomically, read_json
from monai_ccnet.networks.scaling import inner_def
from monai_ccnet.records import METRICS, TrialRecord
from monai_ccnet.reporting.report import report, report_words
from monai_ccnet.scales import scale_words

__all__ = ["PICTURES", "html_report", "save_html_report"]

# The figures of a page, by their file names without the extension, with their captions.
PICTURES = {
    "overlays": "Test images, from the worst to the best F1. Yellow: correct; red: missed by the network; green: added "
    "by the network.",
    "search": "F1 on the held-out training images of each network that was trained, by the scale at which it works; "
    "bars: 90 % intervals.",
    "plan": "Channels of each stage, and the score that the law predicts.",
    "trade_off": "Predicted score of each possible size.",
    "ceiling": "A training image with its label, and the label restored from each scale. Yellow: kept; red: lost; "
    "green: added. Below: what the labels keep.",
    "scales": "A training image at each scale, restored to its size.",
}

_UNKNOWN = "not known"


def save_html_report(
    path: str | os.PathLike,
    plan: CompressionPlan,
    record: TrialRecord,
    full_size_score: float | None = None,
    reading: DataReading | None = None,
) -> None:
    """Write the HTML page of a run atomically, with those figures of :data:`PICTURES` that are beside it as PNG files.

    Args:
        path: path of the HTML file to write; figures are searched for in its folder.
        plan: plan of the network.
        record: record of the trained network.
        full_size_score: the full-size network's own score on the plan's metric, if known.
        reading: what was read of the data set.
    """
    found = Path(path).parent / "search.json"
    files = {name: Path(path).parent / f"{name}.png" for name in PICTURES}
    pictures = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
    search = read_json(found) if found.is_file() else None
    page = html_report(plan, record, full_size_score, pictures, reading, search)
    with atomically(path) as file:
        file.write(page.encode())


def html_report(
    plan: CompressionPlan,
    record: TrialRecord,
    full_size_score: float | None = None,
    pictures: Mapping[str, bytes] | None = None,
    reading: DataReading | None = None,
    search: Mapping[str, Any] | None = None,
) -> str:
    """Return the report of a run as a self-contained HTML page.

    Args:
        plan: plan of the network.
        record: record of the trained network.
        full_size_score: the full-size network's own score on the plan's metric, if known.
        pictures: contents of PNG files by their names in :data:`PICTURES`; missing ones are not shown.
        reading: what was read of the data set.
        search: what ``search.json`` holds, where a search chose the network.

    Raises:
        InfeasibleConstraintError: if the file that was written is above the plan's disk budget.
    """
    content, shown = report(plan, record, full_size_score), pictures or {}

    def picture(name: str) -> str:
        return _picture(shown[name], PICTURES[name]) if name in shown else ""

    sections = [
        "" if record.failure is None else f'<p class="warning">{escape(record.failure)}</p>',
        _tiles(_in_short(plan, content)),
        _paragraphs([*str(plan).splitlines(), *report_words(content).splitlines()]),
        "" if reading is None else _section("Data", _paragraphs(str(reading).splitlines())),
        "" if search is None else _search(search, picture("search")),
        picture("overlays"),
        _section("Predicted and achieved", _table(_SCORES, _scores(content))),
        _scale(plan, picture("ceiling")),
        _section("Constraints", _table(_CONSTRAINTS, _constraints(plan, record))),
        _section("Sizes", _table(_SIZES, _sizes(plan, record))),
        _section("The plan", picture("plan"), _table(_STAGES, _stages(plan)), picture("trade_off")),
        _complexity(plan, picture("scales")),
        _law(plan),
        _section("Training", _table(("setting", "value"), _training(record), "words")),
    ]
    title = f"{record.dataset}: {plan.compression:,.1f} times fewer weights"
    return _PAGE.substitute(title=escape(title), body="\n".join(filter(None, sections)))


_SCORES = ("score", "predicted", "interval", "achieved")
_CONSTRAINTS = ("constraint", "this network", "met")
_SIZES = ("", "full size", "this network", "times smaller")
_STAGES = ("stage", "complexity", "full-size channels", "channels", "multiplier")


def _in_short(plan: CompressionPlan, content: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the most important numbers, each with its meaning."""
    metric, predicted = content["metric"].upper(), content["predicted"]
    relative = content["achieved"]["relative_score"]
    numbers = [(_score(content["achieved"]["score"], 3), f"{metric} on the test images")]
    if relative is not None:
        numbers.append((f"{relative:.1%}", f"of the full-size network's {metric}, achieved"))
    if predicted is not None:
        numbers.append((f"{predicted['relative_score']:.1%}", f"of the full-size network's {metric}, predicted"))
        if predicted["probability"] is not None:
            numbers.append(
                (f"{predicted['probability']:.2f}", f"probability of keeping {predicted['floor']:.1%} of it")
            )
    numbers.append((f"{content['sizes']['file_bytes']:,}", "bytes of the file of weights"))
    numbers.append((f"{plan.compression:,.1f}x", "fewer weights"))
    if plan.scale != 1:
        numbers.append((f"1/{scale_words(plan.scale)}", "of the resolution, at which the network works"))
    if plan.size.macs and plan.full_size.macs:
        numbers.append((f"{plan.full_size.macs / plan.size.macs:,.1f}x", "fewer multiply-adds"))
    return numbers


def _scale(plan: CompressionPlan, picture: str) -> str:
    """Return the section on the working scale: what the labels keep, and what vanishes."""
    ceiling = plan.ceiling
    if ceiling is None:
        return ""
    rows = [
        (
            f"1/{scale_words(scale)}" + (" (this plan)" if scale == plan.scale else ""),
            f"{ceiling.worst(scale):.4f}",
            f"{ceiling.vanished[place]:,} of {ceiling.structures:,}",
            f"{ceiling.vanished_specks[place]:,} of {ceiling.specks:,}",
            f"{ceiling.largest_lost[place]:.3g} {ceiling.unit}" if ceiling.largest_lost[place] else "none",
            f"{ceiling.merged[place]:,}",
            "" if ceiling.skeleton is None else f"{ceiling.skeleton[place]:.1%}",
        )
        for place, scale in enumerate(ceiling.scales)
    ]
    head = (
        "scale",
        "Dice kept",
        "vanished",
        "smaller vanished",
        "largest vanished",
        "joined",
        "centre lines left",
    )
    pixel = "" if ceiling.spacing is None else f" of {' x '.join(f'{each:.3g}' for each in ceiling.spacing)} mm"
    words = [
        f"{ceiling.count:,} training labels, of {' x '.join(map(str, ceiling.size))} pixels{pixel} in the median, went "
        f"down to each scale and back. Structures of {ceiling.smallest_words} and more count, "
        + ("as asked." if ceiling.is_asked else "a tenth of the largest one of the median label."),
        *plan.scale_lines,
    ]
    return _section("The scale at which the network works", _paragraphs(words), picture, _table(head, rows))


_TRAINED = ("channels", "works at 1/", "seed", "F1, held out", "bytes", "cost of one full-size training", "why")


def _search(search: Mapping[str, Any], picture: str) -> str:
    rows = [
        (
            row["channels"],
            row["scale"],
            str(row["seed"]),
            f"{row['f1']:.4f}" + ("" if row["has_learned"] else " (failed to learn)"),
            f"{row['file_bytes']:,}",
            f"{row['cost']:.2%}",
            row["reason"],
        )
        for row in search["trainings"]
    ]
    return _section("The search", _paragraphs(search["words"]), picture, _table(_TRAINED, rows))


def _score(value: float | None, digits: int = 4) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _scores(content: dict[str, Any]) -> list[Sequence[str]]:
    predicted, achieved, metric = content["predicted"], content["achieved"], content["metric"]
    rows: list[Sequence[str]] = []
    if predicted is not None:
        reached = achieved["relative_score"]
        interval = _UNKNOWN if predicted["low"] is None else f"{predicted['low']:.1%} to {predicted['high']:.1%}"
        rows.append(
            (
                f"{metric.upper()} relative to full size",
                f"{predicted['relative_score']:.1%}",
                interval + (", extrapolated" if predicted["is_extrapolated"] else ""),
                _UNKNOWN if reached is None else f"{reached:.1%}",
            )
        )
    for name in METRICS:
        if name in achieved:
            expected = predicted["score"] if predicted is not None and name == metric else None
            rows.append((name, "" if expected is None else f"{expected:.4f}", "", _score(achieved[name])))
    return rows


def _constraints(plan: CompressionPlan, record: TrialRecord) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for each in plan.constraints:
        if isinstance(each, AccuracyFloor):
            score = None if plan.predicted is None else plan.predicted.score
            has = _UNKNOWN if score is None else f"{score:.1%}, predicted"
            kept = score is not None and score >= each.min_score
            if each.confidence is not None and plan.probability is not None:
                has, kept = f"with a probability of {plan.probability:.2f}", plan.probability >= each.confidence
        else:
            needed = each.needed(plan.network_def)
            has, kept = each.words(needed), needed <= each.limit
        binds = " (binding constraint)" if each == plan.constraint and len(plan.constraints) > 1 else ""
        rows.append((f"{each}{binds}", has, "yes" if kept else "no"))
    return [*rows, ("file of weights as written", f"{record.file_bytes:,} bytes", "")]


def _sizes(plan: CompressionPlan, record: TrialRecord) -> list[Sequence[str]]:
    shape = " x ".join(map(str, plan.size.input_shape or ()))
    names = {
        "weights": "weights (kernels)",
        "parameters": "parameters",
        "file_bytes": "bytes of the file at 32 bits",
        "macs": f"multiply-adds for an input of {shape}",
        "activation_bytes": f"bytes of activations for an input of {shape}",
        "training_bytes": f"bytes of activations in training for an input of {shape}",
    }
    pairs = [(words, getattr(plan.full_size, name), getattr(plan.size, name)) for name, words in names.items()]
    rows: list[Sequence[str]] = [
        (words, f"{full:,}", f"{small:,}", f"{full / small:,.1f}") for words, full, small in pairs if full and small
    ]
    written = ("bytes of the file as written", "", f"{record.file_bytes:,}", "")
    if plan.image_size is not None and plan.image_size.macs:
        whole = " x ".join(map(str, (plan.image_size.input_shape or ())[2:]))
        rows.append((f"multiply-adds for an image of the median size, {whole}", "", f"{plan.image_size.macs:,}", ""))
    return [*rows[:3], written, *rows[3:]]


def _stages(plan: CompressionPlan) -> list[Sequence[str]]:
    family = plan.family
    measured = {} if plan.complexity is None else dict(zip(plan.complexity.scales, plan.complexity.mean, strict=True))
    scales: Sequence[int | None] = plan.stage_scales if family.layerwise else [None] * len(plan.channels)
    return [
        (
            "all" if scale is None else f"at 1/{scale}" if scale > 1 else "at full scale",
            f"{measured[scale]:.4f}" if scale in measured else "",
            f"{full:,}",
            f"{channels:,}",
            f"{share:.4f}",
        )
        for scale, full, channels, share in zip(
            scales, plan.full_channels, plan.channels, plan.multipliers, strict=True
        )
    ]


def _complexity(plan: CompressionPlan, picture: str) -> str:
    profile = plan.complexity
    if profile is None:
        return ""
    errors = ["" if error is None else f"{error:.4f}" for error in profile.standard_error or [None] * len(profile.mean)]
    rows = [
        (f"1/{scale}" if scale > 1 else "1", f"{mean:.4f}", error)
        for scale, mean, error in zip(profile.scales, profile.mean, errors, strict=True)
    ]
    settings = ", ".join(f"{key} {value}" for key, value in profile.settings.items())
    words = [f"Mean over {profile.count:,} training images of {profile.dataset}; settings: {settings}."]
    if profile.unreadable:
        words.append(f"{len(profile.unreadable):,} files could not be read and are not counted.")
    table = _table(("scale of the image", "complexity", "standard error"), rows)
    return _section("Complexity of the images", _paragraphs(words), table, picture)


def _law(plan: CompressionPlan) -> str:
    return _section("Law: how fast the network loses accuracy", _paragraphs(str(plan.degradation).splitlines()))


def _training(record: TrialRecord) -> list[Sequence[str]]:
    losses = f"{record.losses[0]:.4f} to {record.losses[-1]:.4f}" if record.losses else _UNKNOWN
    rows = [("network", str(inner_def(record.network_def).get("_target_", ""))), ("loss, first to last epoch", losses)]
    rows += [(name, str(value)) for name, value in record.recipe.items() if name not in ("dataset_dir", "network_def")]
    rows += [("seconds of training and evaluation", f"{record.seconds:,.0f}")]
    return [*rows, *record.versions.items()]


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(filter(None, parts)) + "</section>"


def _paragraphs(lines: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(line)}</p>" for line in lines)


def _tiles(numbers: Iterable[tuple[str, str]]) -> str:
    tiles = (f"<li><b>{escape(number)}</b> {escape(words)}</li>" for number, words in numbers)
    return f'<ul class="tiles">{"".join(tiles)}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    table = f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table class="{kind}">{table}</table></div>'


def _picture(png: bytes, words: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    caption = escape(words)
    return f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; padding: 1rem; max-width: 50rem; font: 1rem/1.5 system-ui, sans-serif; color: #1c2430;
  background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { margin-top: 2.2rem; font-size: 1.2rem; border-bottom: 1px solid #d5dbe3; }
p { margin: 0.5rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.6rem; padding: 0;
  list-style: none; }
.tiles li { padding: 0.6rem 0.8rem; border-radius: 0.5rem; background: #eef3f9; font-size: 0.85rem; }
.tiles b { display: block; font-size: 1.35rem; }
.warning { padding: 0.6rem 0.8rem; border-left: 0.3rem solid #c62828; background: #fdecea; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; border-bottom: 1px solid #e3e8ee; text-align: right; overflow-wrap: normal; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
th { color: #55606e; font-weight: 600; }
.words td { text-align: left; overflow-wrap: anywhere; }
.words th { text-align: left; }
.words td:first-child { width: 45%; }
@media (max-width: 40rem) { table { font-size: 0.8rem; } th, td { padding: 0.25rem 0.15rem; } }
figure { margin: 1.2rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, footer { color: #55606e; font-size: 0.85rem; }
footer { margin-top: 2.5rem; }
</style>
</head>
<body>
<h1>$title</h1>
$body
<footer>Created by monai_ccnet. Method: Mishra, Chen and Hu, Image Complexity Guided Network Compression for Biomedical
Image Segmentation, ACM Journal on Emerging Technologies in Computing Systems (2021).</footer>
</body>
</html>
""")
