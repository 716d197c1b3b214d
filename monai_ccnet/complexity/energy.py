"""Signal energy and Shannon entropy: how bright a picture is, and how evenly its grey levels are used."""

from __future__ import annotations

import numpy as np

from monai_ccnet.complexity.pictures import as_grey

__all__ = ["shannon_entropy", "signal_energy"]


def signal_energy(picture: np.ndarray, *, without_mean: bool = False) -> float:
    """Return the sum of the squared absolute Fourier coefficients of a picture (Mishra et al., section 2.1).

    By Parseval's theorem this is the number of pixels times the sum of their squares, and is computed in this way: it
    measures how bright and how large a picture is. Without its mean, it measures how much the picture varies.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.
        without_mean: whether to leave out the coefficient of frequency 0.

    Returns:
        The energy in squared grey levels, of the unnormalised discrete Fourier transform.

    >>> signal_energy(np.full((2, 2), 3, np.uint8)), signal_energy(np.full((2, 2), 3, np.uint8), without_mean=True)
    (144.0, 0.0)
    """
    grey = as_grey(picture).astype(np.float64)
    if without_mean:
        grey -= grey.mean()
    return float(grey.size * np.square(grey).sum())


def shannon_entropy(picture: np.ndarray) -> float:
    """Return the entropy of the histogram of a picture's 256 grey levels, from 0 (one level) to 8 bits.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``; RGB is converted to luminance.

    >>> shannon_entropy(np.array([[0, 255], [255, 0]], np.uint8))
    1.0
    """
    counts = np.bincount(as_grey(picture).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
