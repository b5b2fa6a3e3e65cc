"""Endoscopic images in DICOM files: their pixels, and nothing of what their headers say."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from endoclip_jax.records.frame_errors import FrameError, check_size

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def is_dicom(raw: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does (part 10: a preamble, then DICM)."""
    return raw[128:132] == b"DICM"


def can_read_dicom() -> bool:
    """Whether pydicom is installed: `pip install 'endoclip_jax[dicom]'`."""
    return importlib.util.find_spec("pydicom") is not None


def decode_dicom(raw: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a DICOM file with one 8-bit colour or grey image; FrameError otherwise."""
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.pixels import pixel_array

    try:
        header = pydicom.dcmread(io.BytesIO(raw))
        height, width = int(header.Rows), int(header.Columns)
        number, bits = int(header.get("NumberOfFrames") or 1), int(header.BitsAllocated)
        kind, syntax = str(header.PhotometricInterpretation), header.file_meta.TransferSyntaxUID
    except Exception as error:  # whatever a malformed file makes pydicom raise
        raise FrameError("broken DICOM file, or one without an image") from error
    check_size(height, width)
    if number != 1:
        raise FrameError(f"DICOM file of {number} frames: export them one by one")
    if bits != 8:
        raise FrameError(f"DICOM image of {bits} bits a sample instead of 8")
    try:
        if syntax == _JPEG_BASELINE:
            pixels = simplejpeg.decode_jpeg(get_frame(header.PixelData, 0, number_of_frames=1))
        else:
            pixels = np.asarray(pixel_array(header))  # YCbCr becomes RGB
    except Exception as error:  # as above; also a compression that no installed decoder knows
        raise FrameError("DICOM image that cannot be decoded") from error
    if kind.startswith("PALETTE"):
        raise FrameError("DICOM image with a colour table")
    if pixels.dtype != np.uint8 or pixels.shape[:2] != (height, width):
        raise FrameError("DICOM image of an unexpected shape")
    if kind == "MONOCHROME1":
        pixels = 255 - pixels
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3)))
