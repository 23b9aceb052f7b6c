"""IoU of boxes as tensors, for losses; `box_ops` has that of arrays."""

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
from keras import ops


def iou_and_giou(first, second) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """IoU and GIoU (Rezatofighi et al., CVPR 2019) of boxes `xyxy` that broadcast, `(..., 4)`."""
    # Side by side: where four numbers are the last axis, no operation uses the processor's width.
    (left, top, right, bottom), (left2, top2, right2, bottom2) = (
        ops.unstack(box, axis=-1) for box in (first, second)
    )
    width = ops.relu(ops.minimum(right, right2) - ops.maximum(left, left2))
    height = ops.relu(ops.minimum(bottom, bottom2) - ops.maximum(top, top2))
    both = width * height
    area = ops.relu(right - left) * ops.relu(bottom - top)
    area2 = ops.relu(right2 - left2) * ops.relu(bottom2 - top2)
    either = area + area2 - both
    hull = (ops.maximum(right, right2) - ops.minimum(left, left2)) * (
        ops.maximum(bottom, bottom2) - ops.minimum(top, top2)
    )
    iou = both / ops.maximum(either, 1e-7)
    return iou, iou - (hull - either) / ops.maximum(hull, 1e-7)
