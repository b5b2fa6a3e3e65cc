from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
import simplejpeg
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from endoclip_jax.records.frames import FrameError, decode_image, stored_jpeg
from endoclip_jax.records.manifest import read_records

VL_ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"


def picture():
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24], pixels[24:, :32], pixels[24:, 32:] = (200, 90, 70), (60, 160, 50), (40, 50, 190)
    return pixels


def dicom(pixels, *, jpeg=False, photometric="RGB", frames=1, bits=8):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VL_ENDOSCOPIC
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = VL_ENDOSCOPIC
    file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    file.PatientName, file.PatientID, file.StudyDate = "Roe^Jane", "MRN4711", "20190312"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    file.PhotometricInterpretation = photometric
    if pixels.ndim == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated = file.BitsStored = bits
    file.HighBit, file.PixelRepresentation = bits - 1, 0
    if frames > 1:
        file.NumberOfFrames = frames
    if jpeg:
        stream = simplejpeg.encode_jpeg(pixels, quality=95)
        file.PixelData = encapsulate([stream])
        file["PixelData"].is_undefined_length = True
    else:
        file.PixelData = pixels.tobytes() * frames
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "jpeg, photometric, close", [(False, "RGB", 0), (True, "YBR_FULL_422", 12)]
)
def test_colour_pictures_are_read(jpeg, photometric, close):
    decoded = decode_image(dicom(picture(), jpeg=jpeg, photometric=photometric))
    assert decoded.dtype == np.uint8 and decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - picture()).mean() <= close / 4


def test_uncompressed_ycbcr_becomes_rgb():
    ycbcr = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    decoded = decode_image(dicom(ycbcr, photometric="YBR_FULL"))
    assert np.abs(decoded.astype(int) - picture()).max() <= 3


@pytest.mark.parametrize("photometric, first", [("MONOCHROME2", 0), ("MONOCHROME1", 255)])
def test_grey_pictures_become_rgb(photometric, first):
    grey = np.tile(np.arange(48, dtype=np.uint8), (40, 1))
    decoded = decode_image(dicom(grey, photometric=photometric))
    assert decoded.shape == (40, 48, 3) and (decoded[:, 0] == first).all()


def test_what_the_header_says_is_not_stored():
    raw = dicom(picture())
    assert b"Roe" in raw and b"MRN4711" in raw
    stored = stored_jpeg(raw)
    for secret in (b"Roe", b"4711", b"2019"):
        assert secret not in stored


def test_what_cannot_be_read_is_refused_with_its_reason():
    for raw, reason in (
        (dicom(picture(), frames=3), "DICOM file of 3 frames"),
        (dicom(np.zeros((40, 40), np.uint16), photometric="MONOCHROME2", bits=16), "16 bits"),
        (dicom(np.zeros((8, 40, 3), np.uint8)), "smaller than"),
        (dicom(picture())[:600], "broken DICOM|cannot be decoded"),
        (b"\0" * 128 + b"DICM" + b"rubbish" * 40, "broken DICOM"),
    ):
        with pytest.raises(FrameError, match=reason):
            decode_image(raw)


def test_dicom_files_stand_beside_others_in_a_folder(tmp_path):
    (tmp_path / "e1").mkdir()
    (tmp_path / "e1" / "report.txt").write_text("Normal.")
    (tmp_path / "e1" / "f1.DCM").write_bytes(dicom(picture()))
    (tmp_path / "e1" / "f2.png").write_bytes(b"x")
    (examination,) = read_records(tmp_path)
    assert [path.name for path in examination.images] == ["f1.DCM", "f2.png"]
