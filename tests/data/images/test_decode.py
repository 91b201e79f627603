import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from keras_skin.data.images.decode import decode_image, image_shape
from keras_skin.data.images.load import decode_or_blank, load_image, load_mask, resize_image, resize_mask

SIZE = (24, 32)
RNG = np.random.default_rng(0)
decode_in_graph = tf.function(decode_image, input_signature=[tf.TensorSpec((), tf.string)])
PICTURE = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((40, 30), Image.Resampling.BICUBIC))
LARGE = np.asarray(Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((266, 200), Image.Resampling.BICUBIC))


def encode(picture, form, mode=None, **options):
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def exif_jpeg(orientation, picture=PICTURE, big_endian=True):
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x010F], exif[0x0112] = "maker", orientation
    return encode(picture, "JPEG", quality=95, exif=exif)


def pillow(contents):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(contents))).convert("RGB")).astype(int)


def bmp(picture, top_down=False, padding=b""):
    height, width = picture.shape[:2]
    rows = [row[:, ::-1].tobytes().ljust((width * 3 + 3) // 4 * 4, b"\0") for row in picture]
    body = b"".join(rows if top_down else rows[::-1])
    header = struct.pack("<IiiHHIIiiII", 40, width, -height if top_down else height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + header + body + padding


FILES = {
    "jpeg": encode(PICTURE, "JPEG"),
    "progressive": encode(PICTURE, "JPEG", progressive=True),
    "grey jpeg": encode(PICTURE, "JPEG", "L"),
    "cmyk jpeg": encode(PICTURE, "JPEG", "CMYK", quality=95),
    "large jpeg": encode(LARGE, "JPEG"),
    "png": encode(PICTURE, "PNG"),
    "palette png": encode(PICTURE, "PNG", "P"),
    "rgba png": encode(PICTURE, "PNG", "RGBA"),
    "grey png": encode(PICTURE, "PNG", "L"),
    "bmp": bmp(PICTURE),
    "top-down bmp": bmp(PICTURE, top_down=True),
    **{f"exif {turn}": exif_jpeg(turn) for turn in range(1, 9)},
}


class ImagePath(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def load(self, contents):
        return resize_image(decode_image(contents, SIZE), SIZE)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def try_all(self, contents):
        return tf.map_fn(
            lambda one: decode_or_blank(one, SIZE),
            contents,
            fn_output_signature=(tf.TensorSpec((*SIZE, 3)), tf.TensorSpec((), tf.bool)),
        )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("exported"))
    tf.saved_model.save(ImagePath(), folder)
    return tf.saved_model.load(folder)


@pytest.fixture(scope="module")
def through_tf_data():
    data = tf.data.Dataset.from_tensor_slices(list(FILES.values()))
    data = data.map(lambda contents: resize_image(decode_image(contents, SIZE), SIZE))
    return dict(zip(FILES, data, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_same_result_eagerly_in_tf_data_and_in_an_exported_graph(name, through_tf_data, exported):
    eager = resize_image(decode_image(FILES[name], SIZE), SIZE)
    assert eager.shape == (*SIZE, 3)
    assert eager.dtype == tf.float32
    np.testing.assert_allclose(through_tf_data[name], eager, rtol=0, atol=1e-4)
    np.testing.assert_allclose(exported.load(FILES[name]), eager, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FILES)
def test_decodes_as_pillow_does(name):
    decoded, expected = decode_image(FILES[name]).numpy().astype(int), pillow(FILES[name])
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 1
    assert image_shape(FILES[name]).numpy().tolist() == list(expected.shape[:2])


@pytest.mark.parametrize("big_endian", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_both_byte_orders(orientation, big_endian):
    contents = exif_jpeg(orientation, big_endian=big_endian)
    assert (b"MM\0*" in contents) == big_endian
    assert np.abs(decode_image(contents).numpy().astype(int) - pillow(contents)).max() <= 1


def test_damaged_exif_never_fails():
    contents = bytearray(exif_jpeg(6))
    start = contents.index(b"Exif\0\0") + 6
    upright = {PICTURE.shape, (PICTURE.shape[1], PICTURE.shape[0], 3)}
    end = start + struct.unpack(">H", contents[start - 8 : start - 6])[0] - 8
    for _ in range(150):
        damaged = bytearray(contents)
        for place in RNG.integers(start, end, size=4):
            damaged[place] = RNG.integers(256)
        assert tuple(decode_in_graph(bytes(damaged)).shape) in upright


@pytest.mark.parametrize("value", [0, 9, 255])
def test_impossible_orientation_is_none(value):
    assert image_shape(exif_jpeg(value)).numpy().tolist() == [30, 40]


@pytest.mark.parametrize(
    ("width", "height", "ratio"),
    [
        (64, 48, 1),
        (94, 72, 1),
        (95, 71, 2),
        (96, 72, 2),
        (191, 143, 4),
        (192, 144, 4),
        (381, 285, 8),
        (1024, 768, 8),
        (1024, 70, 1),
        (1024, 90, 2),
    ],
)
def test_jpeg_is_reduced_while_it_keeps_one_and_a_half_times_the_size(width, height, ratio):
    contents = encode(np.zeros((height, width, 3), np.uint8), "JPEG")
    decoded = decode_image(contents, (24, 32)).shape
    assert decoded == (-(-height // ratio), -(-width // ratio), 3)
    assert ratio == 1 or (decoded[0] >= 36 and decoded[1] >= 48)


def test_reduction_looks_at_the_upright_image():
    picture = np.zeros((200, 80, 3), np.uint8)
    assert decode_image(exif_jpeg(6, picture), (20, 50)).shape == (40, 100, 3)
    assert decode_image(exif_jpeg(1, picture), (20, 50)).shape == (200, 80, 3)


def test_reduced_decode_is_close_to_full_decode_after_resize():
    y, x = np.mgrid[:200, :264]
    waves = np.stack([128 + 100 * np.sin(x / 30), 128 + 100 * np.cos(y / 25), x * 0.9], axis=-1).astype(np.uint8)
    contents = encode(waves, "JPEG", quality=95)
    full = resize_image(decode_image(contents), SIZE)
    reduced = resize_image(decode_image(contents, SIZE), SIZE)
    assert decode_image(contents, SIZE).shape == (50, 66, 3)
    assert np.abs(full - reduced).mean() < 1


def test_sixteen_bit_png_keeps_its_high_byte():
    grey = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    decoded = decode_image(encode(grey, "PNG"))
    np.testing.assert_array_equal(decoded, np.repeat((grey >> 8)[..., np.newaxis], 3, axis=-1))


def test_alpha_is_dropped():
    picture = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2], np.uint8)])
    np.testing.assert_array_equal(decode_image(encode(picture, "PNG")), PICTURE)


def test_padding_behind_a_bmp_is_no_damage():
    np.testing.assert_array_equal(decode_image(bmp(PICTURE, padding=b"\0\0")), PICTURE)


@pytest.mark.parametrize(("form", "name"), [("GIF", "GIF"), ("WEBP", "WebP"), ("TIFF", "TIFF")])
def test_other_formats_are_refused_by_name(form, name):
    contents = encode(PICTURE, form)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} is not supported: expected a JPEG, PNG or BMP"):
        decode_image(contents)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} is not supported"):
        image_shape(contents)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} is not supported"):
        decode_in_graph(contents)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\xff\xd8\xff",
        b"BM",
        b"\x89PNG\r\n\x1a\n",
        b"text",
        FILES["jpeg"][:200],
        FILES["jpeg"][:-60],
        FILES["png"][:-300],
        FILES["bmp"][:-1],
        encode(PICTURE, "BMP", "1"),
        encode(PICTURE, "BMP", "L"),
    ],
    ids=range(11),
)
def test_damaged_files_are_errors_eagerly_and_in_graphs(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(contents)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_in_graph(contents)


def test_too_many_pixels_are_refused_from_the_header():
    png = bytearray(FILES["png"])
    png[16:24] = struct.pack(">II", 10_000, 10_001)
    jpeg = bytearray(FILES["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    huge = bytearray(FILES["bmp"])
    huge[18:26] = struct.pack("<ii", 2**31 - 1, -(2**31))
    for contents in (png, jpeg, huge):
        with pytest.raises(tf.errors.InvalidArgumentError, match="is refused: more than 100000000 pixels"):
            decode_image(bytes(contents))


@pytest.mark.slow
def test_a_header_without_end_is_refused_soon():
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (200, 150, 120)).save(buffer, "JPEG")
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    comment = b"\xff\xfe\x00\x02"
    assert decode_image(start + 500 * comment + rest).shape == (20, 30, 3)
    decode = tf.function(decode_image, input_signature=[tf.TensorSpec((), tf.string)])
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(start + 2_000_000 * comment + rest)  # minutes, were it walked through


@pytest.mark.slow
def test_one_bad_file_does_not_fail_its_batch(exported):
    contents = [FILES["exif 6"], b"", FILES["jpeg"][:200], FILES["png"], encode(PICTURE, "TIFF")]
    for function in (ImagePath().try_all, exported.try_all):
        result, valid = function(tf.constant(contents))
        assert valid.numpy().tolist() == [True, False, False, True, False]
        assert not result[1].numpy().any()
        np.testing.assert_allclose(result[0], exported.load(contents[0]), rtol=0, atol=1e-4)
        np.testing.assert_allclose(result[3], exported.load(contents[3]), rtol=0, atol=1e-4)


def test_resize_of_a_batch_is_that_of_each_image():
    batch = tf.constant(RNG.integers(0, 256, (3, 30, 44, 3), dtype=np.uint8))
    together = resize_image(batch, (11, 17))
    np.testing.assert_allclose(together[1], resize_image(batch[1], (11, 17)), rtol=0, atol=1e-4)
    masks = tf.cast(batch[..., :1] > 128, tf.uint8)
    np.testing.assert_array_equal(resize_mask(masks, (11, 17))[1], resize_mask(masks[1], (11, 17)))


def test_resize_is_antialiased():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resize_image(stripes, (8, 8)).numpy()[:, 1:-1] - 100).max() < 15


def test_resized_mask_is_the_majority_of_each_area():
    mask = (RNG.random((24, 36, 1)) < 0.5).astype(np.uint8)
    expected = mask.reshape(8, 3, 9, 4).mean(axis=(1, 3)) >= 0.5
    resized = resize_mask(mask, (8, 9))
    assert resized.dtype == tf.float32
    np.testing.assert_array_equal(resized[..., 0], expected)
    assert set(np.unique(resize_mask(mask, (50, 61)))) == {0.0, 1.0}


MASK = np.zeros((30, 40), np.uint8)
MASK[8:20, 10:30] = 255


@pytest.mark.parametrize(
    ("contents", "suffix"),
    [
        (encode(MASK, "PNG"), "png"),
        (encode(MASK // 255, "PNG"), "png"),
        (encode(MASK, "PNG", "1"), "png"),
        (encode(np.dstack([MASK, 0 * MASK, 0 * MASK]), "PNG"), "png"),
        (encode(MASK.astype(np.uint16) * 257, "PNG"), "png"),
        (encode(MASK, "JPEG", quality=80), "jpg"),
        (encode(MASK, "BMP", "1"), "bmp"),
        (encode(MASK, "BMP"), "bmp"),
        (bmp(np.repeat(MASK[..., np.newaxis] // 64, 3, axis=-1), top_down=True), "bmp"),
    ],
    ids=["png", "png of 0 and 1", "1-bit png", "red png", "16-bit png", "jpeg", "1-bit bmp", "8-bit bmp", "24-bit bmp"],
)
def test_masks_of_all_kinds(contents, suffix, tmp_path):
    path = tmp_path / f"mask.{suffix}"
    path.write_bytes(contents)
    mask = load_mask(str(path))
    assert mask.dtype == tf.float32
    np.testing.assert_array_equal(mask[..., 0], MASK > 0)
    resized = load_mask(str(path), (15, 20))
    np.testing.assert_array_equal(resized[..., 0], MASK[::2, ::2] > 0)


def test_an_empty_mask_is_empty(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(encode(0 * MASK, "PNG"))
    assert not load_mask(str(path)).numpy().any()


def test_load_image(tmp_path):
    path = tmp_path / "image.bin"  # the content tells the format, not the name
    path.write_bytes(FILES["exif 8"])
    assert load_image(str(path)).shape == (40, 30, 3)
    expected = np.round(resize_image(decode_image(FILES["exif 8"], SIZE), SIZE))
    np.testing.assert_array_equal(load_image(str(path), SIZE), expected)


def test_real_images(real_data):
    jpegs = sorted(real_data.glob("isic2016/*Training_Data/*.jpg"))
    bmps = sorted(real_data.glob("ph2_sample/**/*Dermoscopic_Image/*.bmp"))
    for path in (jpegs[0], jpegs[-1], bmps[0]):
        contents = path.read_bytes()
        assert np.abs(decode_image(contents).numpy().astype(int) - pillow(contents)).max() <= 1
        reduced = load_image(str(path), (192, 256)).numpy()
        with Image.open(io.BytesIO(contents)) as opened:
            expected = np.asarray(opened.convert("RGB").resize((256, 192), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(reduced - expected).mean() < 1
    lesion = sorted(real_data.glob("ph2_sample/**/*_lesion/*_lesion.bmp"))[0]
    assert 0.01 < load_mask(str(lesion)).numpy().mean() < 0.99
