"""MONAI transforms that add the complexity of images and labels to the items of a pipeline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms.transform import MapTransform, Transform
from monai.utils.enums import TransformBackends

from monai_ccnet.complexity.measures import SCALES, complexity_at_scales, measure_settings

__all__ = [
    "ForegroundDensity",
    "ForegroundDensityD",
    "ForegroundDensityDict",
    "ForegroundDensityd",
    "ImageComplexity",
    "ImageComplexityD",
    "ImageComplexityDict",
    "ImageComplexityd",
    "LabelComplexity",
    "LabelComplexityD",
    "LabelComplexityDict",
    "LabelComplexityd",
]


class ImageComplexity(Transform):
    """Measure the complexity of an image at several scales.

    Args:
        measure: a measure of images, such as ``"jpeg"``.
        scales: subsampling along each spatial axis, whole numbers from 1.
        settings: settings of the measure; see :func:`monai_ccnet.complexity.measure_settings`.

    The image has the shape ``(C, H, W)`` or ``(C, H, W, D)``, any real dtype, as array, tensor or MetaTensor; a volume
    is turned to RAS orientation by the affine of a MetaTensor.
    Returns the complexity at each scale, ``{"1": ..., "2": ...}``: plain numbers under string keys, which
    MONAI's data sets, caches and collation preserve.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's own form)

    def __init__(self, measure: str = "jpeg", scales: Sequence[int] = SCALES, **settings: Any) -> None:
        self.settings = measure_settings(measure, **settings)
        self.scales = tuple(scales)

    def __call__(self, img: NdarrayOrTensor) -> dict[str, float]:
        """Return the complexity of an image at each scale."""
        values = complexity_at_scales(img, settings=self.settings, scales=self.scales)
        return {str(scale): value for scale, value in values.items()}


class LabelComplexity(Transform):
    """Measure the complexity of a label at several scales.

    Args:
        measure: a measure of labels: ``"boundary"``, ``"label_jpeg"``, ``"label_detail"``, ``"label_ceiling"`` or
            ``"foreground"``.
        scales: subsampling along each spatial axis, whole numbers from 1.
        settings: settings of the measure; ``spacing="physical"`` takes the spacing of a MetaTensor.

    The label holds class indices of the shape ``(1, H, W)`` or ``(1, H, W, D)``, or one channel of 0 and 1 per class
    without the background; see :func:`~monai_ccnet.complexity.label.class_indices` for what is refused. A volume is
    turned to RAS orientation by the affine of a MetaTensor. Returns ``{"1": ..., "2": ...}``.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, measure: str = "boundary", scales: Sequence[int] = SCALES, **settings: Any) -> None:
        self.settings = measure_settings(measure, **settings)
        self.scales = tuple(scales)

    def __call__(self, img: NdarrayOrTensor) -> dict[str, float]:
        """Return the complexity of a label at each scale."""
        pixdim = getattr(img, "pixdim", None)
        spacing = None if pixdim is None else [float(length) for length in pixdim]
        values = complexity_at_scales(label=img, settings=self.settings, scales=self.scales, spacing=spacing)
        return {str(scale): value for scale, value in values.items()}


class ForegroundDensity(LabelComplexity):
    """Measure the share of a label that is foreground, at several scales: :class:`LabelComplexity` of that measure.

    Args:
        scales: subsampling along each spatial axis, whole numbers from 1.
    """

    def __init__(self, scales: Sequence[int] = SCALES) -> None:
        super().__init__("foreground", scales)


class _MeasureBeside(MapTransform):
    """Put what a transform measures of each key beside it, at ``f"{key}_{postfix}"``."""

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, keys: KeysCollection, measure: Transform, postfix: str, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        self.measure = measure
        self.postfix = postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with the numbers beside the images or labels."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[f"{key}_{self.postfix}"] = self.measure(d[key])
        return d


class ImageComplexityd(_MeasureBeside):
    """Put the complexity of each image beside it, at ``f"{key}_{postfix}"``; see :class:`ImageComplexity`.

    Args:
        keys: keys of the images.
        measure: a measure of images, such as ``"jpeg"``.
        scales: subsampling along each spatial axis, whole numbers from 1.
        postfix: postfix of the keys that are added.
        allow_missing_keys: whether items may lack some of the keys.
        settings: settings of the measure.
    """

    def __init__(
        self,
        keys: KeysCollection,
        measure: str = "jpeg",
        scales: Sequence[int] = SCALES,
        postfix: str = "complexity",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, ImageComplexity(measure, scales, **settings), postfix, allow_missing_keys)


class LabelComplexityd(_MeasureBeside):
    """Put the complexity of each label beside it, at ``f"{key}_{postfix}"``; see :class:`LabelComplexity`.

    Args:
        keys: keys of the labels.
        measure: a measure of labels, such as ``"boundary"``.
        scales: subsampling along each spatial axis, whole numbers from 1.
        postfix: postfix of the keys that are added.
        allow_missing_keys: whether items may lack some of the keys.
        settings: settings of the measure.
    """

    def __init__(
        self,
        keys: KeysCollection,
        measure: str = "boundary",
        scales: Sequence[int] = SCALES,
        postfix: str = "complexity",
        allow_missing_keys: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(keys, LabelComplexity(measure, scales, **settings), postfix, allow_missing_keys)


class ForegroundDensityd(_MeasureBeside):
    """Put the foreground density of each label beside it, at ``f"{key}_{postfix}"``; see :class:`ForegroundDensity`.

    Args:
        keys: keys of the labels.
        scales: subsampling along each spatial axis, whole numbers from 1.
        postfix: postfix of the keys that are added.
        allow_missing_keys: whether items may lack some of the keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        scales: Sequence[int] = SCALES,
        postfix: str = "foreground_density",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ForegroundDensity(scales), postfix, allow_missing_keys)


ImageComplexityD = ImageComplexityDict = ImageComplexityd
ForegroundDensityD = ForegroundDensityDict = ForegroundDensityd
LabelComplexityD = LabelComplexityDict = LabelComplexityd
