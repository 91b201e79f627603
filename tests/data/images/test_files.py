"""Every kind of bad file is found and named; every kind of good file passes and decodes in TensorFlow too."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_skin.data.datasets.stand_ins.drawing import write_mask_bmp
from keras_skin.data.datasets.stand_ins.lesions import draw_lesion
from keras_skin.data.images.files import BadImage, check_image, check_mask, read_header
from keras_skin.data.images.load import load_image, load_mask

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def encode(extension, pixels=RGB, *parameters):
    return cv2.imencode(extension, pixels, list(parameters))[1].tobytes()


def pillow(mode, format_, **options):
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(buffer, format_, **options)
    return buffer.getvalue()


def exif_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pillow("RGB", "JPEG", exif=exif)


def with_flipped_byte(data, position):
    return data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]


def giant_png():
    """A file that claims 3.6 thousand million pixels, with a correct check sum."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return PNG[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


JPEG, PNG, BMP = encode(".jpg"), encode(".png"), encode(".bmp")
GOOD = {
    "jpeg": JPEG,
    "png": PNG,
    "bmp": BMP,
    "progressive jpeg": encode(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "jpeg with restart markers": encode(".jpg", RGB, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "jpeg with bytes behind its end": JPEG + b"\0" * 40,
    "jpeg with exif": exif_jpeg(1),
}
BAD = {
    "empty": (b"", "empty file"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated JPEG: no end marker"),
    "jpeg without its last byte": (JPEG[:-1], "truncated JPEG: no end marker"),
    "jpeg of a header": (JPEG[:30], "truncated or damaged JPEG"),
    "jpeg padded with zeros": (JPEG[: len(JPEG) // 2] + b"\0" * 4000, "truncated JPEG"),
    "half a png": (PNG[: len(PNG) // 2], "truncated or damaged PNG: Truncated File Read"),
    "png without its end": (PNG[:-12], "truncated or damaged PNG: truncated PNG file"),
    "altered png": (with_flipped_byte(PNG, len(PNG) // 2), "damaged PNG: .*checksum in b'IDAT'"),
    "half a bmp": (BMP[: len(BMP) // 2], "truncated BMP"),
    "bmp of a header": (BMP[:20], "truncated or damaged BMP"),
    "text": (b"image_id,label\nISIC_1,benign\n" * 9, "text file, expected JPEG, PNG or BMP"),
    "zeros": (b"\0" * 900, "file of zeros"),
    "noise": (b"\x07\x99" * 500, "file of unknown format"),
    "tiff": (pillow("RGB", "TIFF"), "TIFF file, expected JPEG, PNG or BMP"),
    "gif": (pillow("P", "GIF"), "GIF file"),
    "webp": (pillow("RGB", "WEBP"), "WebP file"),
    "grey jpeg": (pillow("L", "JPEG"), "grey image with 1 channel, expected 8-bit RGB"),
    "grey png": (pillow("L", "PNG"), "grey image with 1 channel, expected 8-bit RGB"),
    "grey and alpha png": (pillow("LA", "PNG"), "grey and alpha image with 2 channels"),
    "black and white png": (pillow("1", "PNG"), "1-bit grey image"),
    "rgba png": (pillow("RGBA", "PNG"), "RGBA image with 4 channels, expected 8-bit RGB"),
    "rgba bmp": (encode(".bmp", cv2.cvtColor(RGB, cv2.COLOR_RGB2RGBA)), "RGBA image with 4 channels"),
    "cmyk jpeg": (pillow("CMYK", "JPEG"), "CMYK image with 4 channels, expected 8-bit RGB"),
    "16-bit rgb png": (encode(".png", RGB.astype(np.uint16) * 257), "16-bit RGB image, expected 8-bit RGB"),
    "16-bit grey png": (encode(".png", RGB[..., 0].astype(np.uint16) * 257), "16-bit grey image"),
    "palette png": (pillow("P", "PNG"), "palette image"),
    "palette bmp": (pillow("P", "BMP"), "palette image"),
    "arithmetic jpeg": (JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1), "arithmetic-coded JPEG"),
    "giant png": (giant_png(), "more than 100 million pixels"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_images_pass_and_decode_in_tensorflow(tmp_path, name):
    path = tmp_path / "image.jpg"  # content decides, not the name
    path.write_bytes(GOOD[name])
    header = check_image(path)
    assert header.size == (40, 60)
    decode = {"JPEG": tf.io.decode_jpeg, "PNG": tf.io.decode_png, "BMP": tf.io.decode_bmp}[header.format]
    assert decode(GOOD[name], channels=3).shape == (40, 60, 3)


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_with_a_reason(tmp_path, name):
    data, reason = BAD[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=reason):
        check_image(path)


@pytest.mark.parametrize("data", [JPEG, PNG, BMP], ids=["jpeg", "png", "bmp"])
def test_no_prefix_of_a_file_passes(tmp_path, data):
    path = tmp_path / "image"
    for length in range(0, len(data) - 1, 97):
        path.write_bytes(data[:length])
        with pytest.raises(BadImage):
            check_image(path)


def test_a_file_that_is_not_there_is_a_bad_image(tmp_path):
    with pytest.raises(BadImage, match="cannot be read"):
        check_image(tmp_path / "none.jpg")


def test_a_thumbnail_does_not_hide_a_truncated_jpeg():
    exif = b"Exif\0\0" + encode(".jpg", RGB[:8, :8])
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    whole = JPEG[:2] + segment + JPEG[2:]
    assert read_header(whole).size == (40, 60)
    with pytest.raises(BadImage, match="no end marker"):
        read_header(whole[:-100])


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_turns_the_size(orientation):
    assert read_header(exif_jpeg(orientation)).size == ((60, 40) if orientation in (5, 6, 7, 8) else (40, 60))


def test_a_mask_is_compared_with_the_turned_image(tmp_path):
    (tmp_path / "image.jpg").write_bytes(exif_jpeg(6))
    image = check_image(tmp_path / "image.jpg")
    (tmp_path / "turned.png").write_bytes(encode(".png", np.zeros((60, 40), np.uint8)))
    assert check_mask(tmp_path / "turned.png", image).size == (60, 40)
    (tmp_path / "stored.png").write_bytes(encode(".png", np.zeros((40, 60), np.uint8)))
    with pytest.raises(BadImage, match="mask of 60 x 40 pixels, but its image has 40 x 60 pixels after its EXIF rotation"):
        check_mask(tmp_path / "stored.png", image)


@pytest.mark.parametrize(
    "kind", ["1-bit bmp", "24-bit bmp", "24-bit top-down bmp", "1-bit png", "8-bit png", "rgb png", "palette png"]
)
def test_masks_of_any_depth_pass(tmp_path, kind):
    mask = RGB[..., 0] > 127
    path = tmp_path / "mask"
    if kind == "1-bit bmp":
        write_mask_bmp(path, mask)
    else:
        grey = mask.astype(np.uint8) * 255
        data = {
            "24-bit bmp": encode(".bmp", cv2.merge([grey] * 3)),
            "24-bit top-down bmp": encode(".bmp", cv2.merge([grey] * 3)),
            "1-bit png": encode(".png", grey, cv2.IMWRITE_PNG_BILEVEL, 1),
            "8-bit png": encode(".png", grey),
            "rgb png": encode(".png", cv2.merge([grey] * 3)),
            "palette png": pillow("P", "PNG"),
        }[kind]
        if kind == "24-bit top-down bmp":
            data = data[:22] + struct.pack("<i", -40) + data[26:]
        path.write_bytes(data)
    assert check_mask(path, read_header(JPEG)).size == (40, 60)


def test_a_mask_that_cannot_be_decoded_is_refused(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"")
    with pytest.raises(BadImage, match="empty file"):
        check_mask(tmp_path / "mask.png", None)


def damaged_jpegs():
    """Rendered JPEGs, and real ones where they are at hand, each with 512 random bytes in its entropy-coded data."""
    random = np.random.default_rng(0)
    files = [
        encode(".jpg", draw_lesion(np.random.default_rng(seed), (300, 400), 0.5)[0], cv2.IMWRITE_JPEG_QUALITY, quality)
        for seed, quality in enumerate((60, 75, 92, 95) * 5)
    ]
    folder = Path(os.environ.get("KERAS_SKIN_DATA", "none")) / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data"
    files += [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:40]]
    for data in files:
        first = data.rindex(b"\xff\xda") + 14  # behind the header of the last scan
        start = int(random.integers(first, len(data) - 514))
        yield data[:start] + random.bytes(512) + data[start + 512 :]


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_the_check_refuses_what_training_and_serving_refuse(tmp_path, kind):
    path, refused = tmp_path / "image.jpg", {False: 0, True: 0}
    for data in damaged_jpegs():
        path.write_bytes(data)
        try:
            load_image(str(path), (32, 32)) if kind == "image" else load_mask(str(path))
            load_image(str(path))
            decodes = True
        except tf.errors.InvalidArgumentError:
            decodes = False
        if decodes:
            check_image(path) if kind == "image" else check_mask(path, None)
        else:
            with pytest.raises(BadImage, match="JPEG"):
                check_image(path) if kind == "image" else check_mask(path, None)
        refused[not decodes] += 1
    assert refused[True] > 10, refused
