"""The smallest MONAI network that still segments your images.

The parts, in reading order:

- ``values``: frozen dataclasses that round-trip through JSON, and files that are never half-written.
- ``failures``: errors that end with what to do.
- ``complexity``: image -> number, at every scale; :class:`~monai_ccnet.complexity.ComplexityProfile` of a data set.
- ``networks``: a network, at any width; exact sizes without allocating it.
- ``losses``: training a network that has auxiliary outputs.
- ``degradation``: how much accuracy a network loses as it narrows, per unit of complexity.
- ``constraints``: a budget or a floor -> :class:`~monai_ccnet.constraints.CompressionPlan`.
- ``calibration``: one training of one network, kept as a record.
- ``posttraining``: what is done to a trained network: pruned, merged, stored at 8 bits, exported.
- ``comparison``: every way to a smaller network, at equal budgets.
- ``transforms``, ``auto3dseg``: complexity inside a MONAI pipeline, and inside Auto3DSeg's data analysis.
- ``figures``: pictures of what was measured, planned and found.
- ``report``, ``html_report``: what a run tells, as JSON, in plain words, and as one page with its pictures.
- ``datalist``: is a data set what its list says?
- ``datasets``: public data sets, from the folders they are distributed as.
- ``samples``: real sample data, through a library that ships it.

Nothing is imported here, so that ``import monai_ccnet`` costs nothing.
"""

from pathlib import Path

__version__ = "0.1.0"

__all__ = ["__version__", "bundle_root"]


def bundle_root() -> Path:
    """Return the folder of the bundle that comes with this package, in a checkout and in an installed wheel alike."""
    installed = Path(__file__).parent / "bundles" / "complexity_guided_compression"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "bundles" / installed.name
