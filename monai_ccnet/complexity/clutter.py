"""Visual clutter: feature congestion and subband entropy of Rosenholtz, Li and Nakano (Journal of Vision 7(2), 2007).

Both use the planes of a special colour space (``_opponent_planes``). A grey picture is treated as RGB with three equal
channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy import fft

from monai_ccnet.complexity.pictures import as_grey

__all__ = ["feature_congestion", "rotated", "steerable_pyramid", "subband_entropy"]

_LEVELS = 3
_EXPANSION = np.array([0.05, 0.25, 0.4, 0.25, 0.05])
# Added to the covariances of L, a and b and of orientation, so that a flat picture has a volume above 0.
_COLOUR_NOISE = (0.0007**2, 0.1**2, 0.05**2)
_ORIENTATION_NOISE = 0.001
_CONTRAST_SCALE, _COLOUR_SCALE, _ORIENTATION_SCALE = 0.0660, 0.2088, 0.0269
_ORIENTATIONS = 4
_CHROMA_WEIGHT = 0.0625
_FLAT_CHROMA = 0.008


def feature_congestion(picture: np.ndarray) -> float:
    """Return how congested a picture is with colours, contrasts and orientations that vary locally.

    At each of three levels of a Gaussian pyramid: the volume of the local colour distribution, the local deviation of
    centre-surround contrast, and the volume of the local distribution of orientations. Each is the largest over the
    levels; their weighted sum is averaged over the picture.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``.

    Returns:
        A number without unit: 1.248 for a picture of one colour, 4.390 for scikit-image's ``astronaut``.

    >>> round(feature_congestion(np.full((64, 64, 3), 200, np.uint8)), 4)
    1.2483
    """
    planes = _opponent_planes(picture)
    pyramids = [_gaussian_pyramid(plane) for plane in planes]
    colour = _largest_over_levels([_colour_volume(level) for level in zip(*pyramids, strict=True)])
    contrast = _largest_over_levels([_contrast_deviation(level) for level in pyramids[0]])
    orientation = _largest_over_levels([_orientation_volume(level) for level in pyramids[0]])
    return float(
        colour.mean() / _COLOUR_SCALE + contrast.mean() / _CONTRAST_SCALE + orientation.mean() / _ORIENTATION_SCALE
    )


def subband_entropy(picture: np.ndarray) -> float:
    """Return the mean entropy of a picture's subbands, an estimate of what a wavelet coder would need.

    The subbands are those of a steerable pyramid with three levels and four orientations. Each of the two colour planes
    has a weight of 1/16.

    Args:
        picture: ``(H, W)`` or RGB ``(H, W, 3)``, ``uint8``.

    Returns:
        Nats per coefficient; 0 for a picture of one colour, 3.196 for scikit-image's ``astronaut``.
    """
    total = 0.0
    for plane, weight in zip(_opponent_planes(picture), (1, _CHROMA_WEIGHT, _CHROMA_WEIGHT), strict=True):
        if np.ptp(plane) >= _FLAT_CHROMA:
            total += weight * float(np.mean([_entropy(band) for band in steerable_pyramid(plane)]))
    return total / (1 + 2 * _CHROMA_WEIGHT)


def _opponent_planes(picture: np.ndarray) -> list[np.ndarray]:
    """Return L, a and b as the measures were calibrated: by CIELAB's formulas, XYZ in 0..1 over a white of 95-100-109.

    Thus L of white is 8.99, not 100; with the usual scale of CIELAB the published weights would not hold.
    """
    as_grey(picture)  # raises an error if this is not a picture
    colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    levels = np.arange(256) / 255
    linear = np.where(levels >= 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92).astype(np.float32)[colour]
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    to_xyz /= np.array([[95.047], [100.0], [108.833]])
    xyz = cv2.transform(linear, to_xyz.astype(np.float32))
    x, y, z = cv2.split(np.where(xyz >= 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).astype(np.float64))
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


def _gaussian_pyramid(plane: np.ndarray) -> list[np.ndarray]:
    """Return a plane and its coarser versions, each with twice the gain of the one before."""
    levels = [plane]
    while len(levels) < _LEVELS:
        levels.append(2 * cv2.pyrDown(levels[-1]))
    return levels


def _largest_over_levels(levels: list[np.ndarray]) -> np.ndarray:
    """Return the largest over levels brought to the size of the first; each step up loses a factor of 4."""
    largest = levels[0]
    for steps, level in enumerate(levels[1:], start=1):
        for _ in range(steps):
            spread = np.zeros((2 * level.shape[0], 2 * level.shape[1]))
            spread[::2, ::2] = level
            level = _filter(spread, _EXPANSION)
        height, width = (min(sizes) for sizes in zip(largest.shape, level.shape, strict=True))
        largest[:height, :width] = np.maximum(largest[:height, :width], level[:height, :width])
    return largest


def _colour_volume(planes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the sixth root of the determinant of the local covariance of L, a and b."""
    mean = _local_mean_of(planes[0].shape, sigma=3)
    means = [mean(plane) for plane in planes]

    def covariance(i: int, j: int) -> np.ndarray:
        noise = _COLOUR_NOISE[i] if i == j else 0
        return mean(planes[i] * planes[j]) - means[i] * means[j] + noise

    ll, aa, bb = (covariance(i, i) for i in range(3))
    la, lb, ab = covariance(0, 1), covariance(0, 2), covariance(1, 2)
    determinant = ll * (aa * bb - ab**2) - la * (la * bb - ab * lb) + lb * (la * ab - aa * lb)
    return np.maximum(determinant, 0) ** (1 / 6)


def _contrast_deviation(plane: np.ndarray) -> np.ndarray:
    """Return the local standard deviation of the absolute difference of two Gaussians."""
    inner, outer = (_filter(plane, _gaussian(sigma, 3)) for sigma in (0.71, 1.14))
    contrast = np.abs(inner - outer)
    mean = _local_mean_of(plane.shape, sigma=3)
    return np.sqrt(np.abs(mean(contrast**2) - mean(contrast) ** 2))


def _orientation_volume(plane: np.ndarray) -> np.ndarray:
    """Return the fourth root of the determinant of the local covariance of the two opponent orientation energies."""
    horizontal, vertical, left, right = (
        _pooled(cv2.filter2D(plane, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101) ** 2)
        for kernel in _orientation_kernels()
    )
    total = horizontal + vertical + left + right + 1.0
    cosine, sine = (horizontal - vertical) / total, (right - left) / total
    mean = _local_mean_of(plane.shape, sigma=14)
    mean_cosine, mean_sine = mean(cosine), mean(sine)
    cc = mean(cosine**2) - mean_cosine**2 + _ORIENTATION_NOISE
    ss = mean(sine**2) - mean_sine**2 + _ORIENTATION_NOISE
    cs = mean(cosine * sine) - mean_cosine * mean_sine
    return np.maximum(cc * ss - cs**2, 0) ** (1 / 4)


@functools.cache
def _orientation_kernels(sigma: float = 2.0, half: int = 6) -> tuple[np.ndarray, ...]:
    """Return the second differences of Gaussians, one sigma apart, along y, x and the two diagonals.

    The diagonal ones are the upright ones rotated pixel by pixel, cut corners included, as the measure was calibrated:
    exact Gaussians along the diagonal would raise it by half a per cent.
    """
    steps = np.arange(-half, half + 1)
    across = np.exp(-(steps**2) / (2 * sigma**2))
    blobs = [np.outer(np.exp(-((steps - shift) ** 2) / (2 * sigma**2)), across) for shift in (sigma, 0, -sigma)]

    def second_difference(degrees: float) -> np.ndarray:
        above, centre, below = (rotated / rotated.sum() for rotated in (rotated(blob, degrees) for blob in blobs))
        return 2 * centre - above - below

    return tuple(map(second_difference, (0, 90, 45, -45)))


def rotated(kernel: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate a square by cubic convolution (Keys 1981), without overshoot; around it is its least value."""
    steps = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    turn = np.exp(1j * np.radians(degrees)) * (steps[None] + 1j * steps[:, None]).ravel()

    def weights(positions: np.ndarray) -> np.ndarray:
        distance = np.abs(positions[:, None] - steps)
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        return np.where(distance < 1, near, np.where(distance < 2, far, 0))

    least = kernel.min()
    rotated = np.einsum("pi,ij,pj->p", weights(turn.imag), kernel - least, weights(turn.real)) + least
    return np.clip(rotated, least, kernel.max()).reshape(kernel.shape)


def _pooled(energy: np.ndarray) -> np.ndarray:
    """Smooth by expanding to twice the size and reducing again, each with the same Gaussian."""
    height, width = energy.shape
    spread = np.zeros((2 * height, 2 * width))
    spread[::2, ::2] = energy
    expanded = 4 * _local_mean_of(spread.shape, sigma=1.75, half=4)(spread)
    return _filter(expanded, _gaussian(1.75, 4))[::2, ::2]


def _local_mean_of(shape: tuple[int, ...], sigma: float, half: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function: the mean in a Gaussian window, of which only the part within the picture counts."""
    kernel = _gaussian(sigma, half or round(2 * sigma))
    overlaps = [np.convolve(np.ones(length), kernel, mode="full")[len(kernel) // 2 :][:length] for length in shape]
    overlap = overlaps[0][:, None] * overlaps[1][None]
    return lambda plane: cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT) / overlap


def _gaussian(sigma: float, half: int) -> np.ndarray:
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _filter(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def steerable_pyramid(plane: np.ndarray) -> list[np.ndarray]:
    """Return the subbands of the steerable pyramid in the frequency domain of Simoncelli and Freeman (1995).

    The residual of high frequencies, four orientations of each level, and the residual of low frequencies.
    """
    spectrum = fft.rfft2(plane)
    return [
        fft.irfft2(spectrum[rows][:, : mask.shape[1]] * mask, s=shape) for mask, rows, shape in _subbands(plane.shape)
    ]


@functools.lru_cache(maxsize=4)
def _subbands(shape: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """Return each subband's mask over the half spectrum, the rows of the spectrum it covers, and its own shape."""
    y, x = 2 * fft.fftfreq(shape[0]), 2 * fft.rfftfreq(shape[1])  # up to 1, Nyquist's frequency
    radius = np.hypot(y[:, None], x[None])
    angle = np.arctan2(y[:, None], x[None])
    octave = np.log2(radius, out=np.full_like(radius, -np.inf), where=radius > 0)

    def passes(cutoff: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of high and low frequencies, which cross over within the octave below ``cutoff``."""
        share = np.clip(octave - cutoff + 1, 0, 1) * (np.pi / 2)
        return np.sin(share), np.cos(share)

    order = _ORIENTATIONS - 1
    gain = math.sqrt(2 ** (2 * order) * math.factorial(order) ** 2 / (_ORIENTATIONS * math.factorial(2 * order)))
    rows = np.arange(shape[0])
    high, passed = passes(0)
    bands = [(high, rows, shape)]
    for level in range(_LEVELS):
        high, low = passes(-1 - level)
        columns = shape[1] // 2 + 1
        for orientation in range(_ORIENTATIONS):
            steering = (-1j) ** order * gain * np.cos(angle - np.pi * orientation / _ORIENTATIONS) ** order
            bands.append(((passed * high * steering)[rows][:, :columns], rows, shape))
        passed = passed * low
        height, _ = shape = (shape[0] + 1) // 2, (shape[1] + 1) // 2
        rows = np.concatenate([rows[: (height + 1) // 2], rows[len(rows) - height // 2 :]])
    return [*bands, (passed[rows][:, : shape[1] // 2 + 1], rows, shape)]


def _entropy(band: np.ndarray) -> float:
    """Return the entropy, in nats, over as many bins as the square root of the number of coefficients."""
    edges = math.ceil(math.sqrt(band.size))
    if edges < 2 or np.ptp(band) == 0:
        return 0.0
    low, high = band.min(), band.max()
    bins = ((band.ravel() - low) * ((edges - 1) / (high - low))).astype(np.int64)  # the largest has its own
    counts = np.bincount(bins)
    shares = counts[counts > 0] / band.size
    return float(-(shares * np.log(shares)).sum())
