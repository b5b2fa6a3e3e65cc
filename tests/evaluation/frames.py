"""Frames in memory with their truth: a `FrameSet` without files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from endoclip_jax.evaluation.frame_sets import Truth


@dataclass(frozen=True)
class ArrayFrames:
    """Uniform squares whose red is given; the last batch is padded, and one frame unreadable."""

    red: np.ndarray
    polyp: np.ndarray
    vienna: np.ndarray
    patients: np.ndarray
    unreadable: int = 0

    def labelled_frames(self):
        return np.arange(len(self.red))

    def batches(self, image_size):
        for start in range(0, len(self.red), 16):
            frame = np.full(16, -1)
            part = np.arange(start, min(start + 16, len(self.red)))
            frame[: len(part)] = part
            image = np.zeros((16, image_size, image_size, 3), np.uint8)
            image[: len(part), :, :, 0] = self.red[part, None, None]
            yield {
                "image": image,
                "frame": frame,
                "valid": (frame >= 0) & (frame != self.unreadable),
            }

    def truth(self, frames):
        return Truth(frames, self.polyp[frames], self.vienna[frames], self.patients[frames])


def coloured(count=90):
    """Every third frame shows a polyp and is redder; three frames a patient."""
    number = np.arange(count)
    polyp = (number % 3 == 0).astype(np.int64)
    red = (60 + 120 * polyp + number % 7).astype(np.uint8)
    vienna = np.where(polyp == 1, np.where(number % 2 == 0, 1, 3), 0)
    return ArrayFrames(red, polyp, vienna, np.asarray([f"p{i // 3}" for i in number]))
