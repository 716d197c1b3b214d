"""The smallest MONAI network that still segments your images.

The parts, in import order, lowest first; a part imports only parts above it in this list:

- ``files``: atomic writing of files, JSON and tables.
- ``settings``: the settings of the bundle's configs, their allowed values and their meaning.
- ``configs``: checks of the ids and values that are given to the bundle's configs.
- ``values``: frozen dataclasses that round-trip through JSON.
- ``data``: data sets on disk: opening, validating and reading them; public data sets and sample data.
- ``networks``: networks at any width, their exact sizes without allocation, their latency and their files of weights.
- ``degradation``: the law that predicts the score of a narrowed network from the complexity of its data set.
- ``complexity``: the complexity of images and labels at every scale, and the profile of a data set.
- ``transforms``, ``auto3dseg``: complexity in a MONAI pipeline, and in Auto3DSeg's data analysis.
- ``constraints``: budgets, accuracy floors, and the :class:`~monai_ccnet.constraints.CompressionPlan` that meets them.
- ``records``: the record of one trained network and its scores.
- ``handlers``: Ignite handlers for training narrowed networks.
- ``training``: training runs by the bundle's configs, alone or in sweeps.
- ``calibration``: the law of a network, fitted to the records of training runs.
- ``posttraining``: pruning, merging, quantization and export of a trained network.
- ``figures``: figures of measurements, plans and results.
- ``reporting``: the report of a run, as JSON, as plain text and as an HTML page.
- ``comparison``: methods for smaller networks, compared at equal budgets.
- ``bundle``: the steps of the bundle's configs.
- ``__main__``: the command ``monai-ccnet``.

None of them is imported here, so that ``import monai_ccnet`` is fast.
"""

from pathlib import Path

__version__ = "0.1.0"

__all__ = ["__version__", "bundle_root"]


def bundle_root() -> Path:
    """Return the folder of the bundle that comes with this package, in a checkout and in an installed wheel alike."""
    installed = Path(__file__).parent / "bundles" / "complexity_guided_compression"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "bundles" / installed.name
