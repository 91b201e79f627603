"""Predictions for files: the run's own numbers, upright masks, and whatever else lies in a folder."""

import os
import re
import shutil
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin import predict
from keras_skin.presets import sources
from keras_skin.workflow import exporting, prediction


@pytest.fixture(scope="module")
def measured(tiny_run):
    """The test part of a finished run with its files."""
    table = pd.read_csv(tiny_run / "predictions.csv", dtype={"image_id": str})
    table = table[table["split"] == "test"].reset_index(drop=True)
    files = {file.stem: file for file in (tiny_run / "demo_data" / "ph2").rglob("*.bmp")}
    return table.assign(file=[str(files[image_id]) for image_id in table["image_id"]])


@pytest.fixture(scope="module")
def folder(measured, tmp_path_factory):
    """Three images, one of them turned by EXIF, among files that are none."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "later").mkdir()
    for row, name in enumerate(("plain.bmp", "later/plain.bmp")):
        shutil.copyfile(measured["file"][row], folder / name)
    image, tag = Image.open(measured["file"][2]), Image.Exif()
    tag[0x112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=tag, quality=98, subsampling=0)
    (folder / "broken.png").write_text("no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("passed over")
    return folder


@pytest.fixture(scope="module")
def done(tiny_run, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    assert predict.main([str(tiny_run), str(folder), "--out", str(out)]) == 1
    return out


def test_the_numbers_are_those_of_the_run(done, measured, folder):
    table = pd.read_csv(done / "predictions.csv").set_index("file")
    assert len(table) == 3
    for row, name in enumerate(("plain.bmp", "later/plain.bmp", "turned.jpg")):
        tolerance = 1e-4 if name.endswith("bmp") else 0.05  # a JPEG is another image
        prediction_row = table.loc[str(folder / name)]
        assert prediction_row["probability_malignant"] == pytest.approx(measured["probability_malignant"][row], abs=tolerance)
        assert prediction_row["label"] in ("benign", "malignant")


def test_masks_and_overlays_are_upright_and_have_names_of_their_own(done, measured, folder, tiny_run):
    for row, name in enumerate(("plain", "later/plain", "turned")):
        mask = cv2.imread(str(done / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == cv2.imread(measured["file"][row]).shape[:2]
        assert set(np.unique(mask)) <= {0, 255}
        written = cv2.imread(str(tiny_run / "masks" / "test" / f"{measured['image_id'][row]}.png"), cv2.IMREAD_UNCHANGED)
        assert (mask == written).mean() > (0.9999 if name != "turned" else 0.9)
        overlay = cv2.imread(str(done / "overlays" / f"{name}.png"))
        assert overlay.shape[1] <= 640
        assert overlay.shape[0] > overlay.shape[1] * mask.shape[0] / mask.shape[1]  # the caption is below


def test_bad_files_are_listed_and_the_rest_goes_on(done, folder, tiny_run, tmp_path, capsys):
    skipped = pd.read_csv(done / "skipped.csv").set_index("file")["reason"]
    assert skipped[str(folder / "empty.jpg")] == "empty file"
    assert "expected JPEG, PNG or BMP" in skipped[str(folder / "broken.png")]
    assert len(skipped) == 2
    assert predict.main([str(tiny_run / "saved_model" / "1"), str(folder / "plain.bmp"), "--out", str(tmp_path / "one")]) == 0
    output = capsys.readouterr().out
    assert "SYNTHETIC: this model was trained on synthetic images" in output
    assert "1 of 1 images predicted, 0 skipped" in output
    assert not (tmp_path / "one" / "skipped.csv").exists()


def test_ctrl_c_keeps_what_is_done(tiny_run, measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "BATCH", 2)
    real = prediction.predict_files

    def interrupted(*arguments):
        batches = real(*arguments)
        yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "predict_files", interrupted)
    assert predict.main([str(tiny_run), *measured["file"][:5], "--out", str(tmp_path / "out")]) == 130
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 2
    assert "Interrupted: finished images are saved." in capsys.readouterr().err


def test_a_preset_is_exported_once(preset, measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_SKIN_CACHE", str(tmp_path / "cache"))
    files = measured["file"][:3].tolist()
    assert predict.main([str(preset), *files, "--out", str(tmp_path / "out")]) == 0
    assert "Exporting the preset tiny, once" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    # weights in half precision change the probabilities of the run by less than this
    np.testing.assert_allclose(table["probability_malignant"], measured["probability_malignant"][:3], atol=2e-3)
    monkeypatch.setattr(exporting, "export_run", None)
    assert predict.main([str(preset), *files, "--out", str(tmp_path / "again")]) == 0
    assert "Exporting" not in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "again" / "predictions.csv").equals(table)


def test_a_mistyped_preset(measured, tmp_path, monkeypatch, preset, capsys):
    monkeypatch.setattr(sources, "_shipped_folder", lambda: preset.parent)
    assert predict.main(["tinny", measured["file"][0], "--out", str(tmp_path / "out")]) == 2
    assert "neither a folder nor a preset 'tinny'. Did you mean 'tiny'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_memory_does_not_grow_with_the_number_of_images(tiny_run, measured, tmp_path, monkeypatch, count):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(count):
        (photographs / f"{number}.bmp").hardlink_to(measured["file"][number % 5])
    resident = []
    real = prediction.predict_files

    def watched(*arguments):
        for rows in real(*arguments):
            status = prediction.Path("/proc/self/status").read_text()
            resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024)
            yield rows

    monkeypatch.setattr(prediction, "predict_files", watched)
    assert predict.main([str(tiny_run), str(photographs), "--out", str(tmp_path / "out")]) == 0
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == count
    assert max(resident) - resident[len(resident) // 3] < 100, resident  # MiB


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "nowhere", "{here}/gone.jpg"], ["nowhere: there is no such", "gone.jpg: there is no such"]),
        (["{here}", "{photo}"], ["neither a run with an exported model", "saved_model/1"]),
        (["{run}", "{empty}"], ["No image in", ".bmp"]),
        (["{run}", "{photo}", "--metadata", "{here}/m.csv"], ["takes no clinical fields; leave it out"]),
        (["{run}", "{photo}", "--out", "{run}"], ["exists and is not empty"]),
    ],
)
def test_mistakes_are_told(tiny_run, measured, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    places = {"run": tiny_run, "here": tmp_path, "photo": measured["file"][0], "empty": tmp_path / "empty"}
    command = [text.format(**places) for text in arguments]
    assert predict.main([*command, *([] if "--out" in command else ["--out", str(tmp_path / "out")])]) == 2
    output = capsys.readouterr().err
    for word in words:
        assert word in output
    assert not (tmp_path / "out").exists()


def test_the_mask_beside_an_image_is_no_image(tmp_path):
    for name in ("a.jpg", "a_segmentation.png", "lonely_mask.png", "notes.txt"):
        (tmp_path / name).touch()
    pictures, notes = prediction.find_pictures([tmp_path])
    assert [picture.name for picture in pictures] == ["a", "lonely_mask"]
    assert notes == ["1 other files were skipped.", "1 masks of these images were skipped."]
    named, _ = prediction.find_pictures([tmp_path / "a_segmentation.png"])
    assert [picture.name for picture in named] == ["a_segmentation"]


def test_no_image_gets_the_mask_of_another(tmp_path):
    for name in ("a.jpg", "a.png", "a_2.jpg", "A.bmp", "x/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pictures, notes = prediction.find_pictures([tmp_path, tmp_path / "x" / ".." / "a.jpg"])
    names = {picture.path: picture.name for picture in pictures}
    assert names == {"A.bmp": "A", "a.jpg": "a_3", "a.png": "a_4", "a_2.jpg": "a_2", "x/a.jpg": "x/a"}
    assert notes[0].splitlines()[1:] == [f"  {tmp_path / 'a.jpg'}: a_3.png", f"  {tmp_path / 'a.png'}: a_4.png"]


def test_cells_that_nothing_uses_are_listed_in_a_file(tmp_path, monkeypatch, capsys):
    inputs = {"image_bytes": {"dtype": "string"}, "age": {"dtype": "float32"}}
    about = {"name": "fused", "classes": [], "signatures": {"serving_default": {"inputs": inputs, "outputs": {}}}}
    monkeypatch.setattr(prediction, "open_exported", lambda path: prediction.ExportedModel(path, about, None))
    monkeypatch.setattr(prediction, "predict_files", lambda *arguments: iter([]))
    (tmp_path / "a.jpg").touch()
    (tmp_path / "m.csv").write_text("image,age,side\na,5,left\n" + "".join(f"b{number},6,right\n" for number in range(30)))
    command = [str(tmp_path), str(tmp_path / "a.jpg"), "--metadata", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out")]
    assert predict.main(command) == 0
    output = capsys.readouterr().out
    assert "30 of 31 rows are not used:\n  line 3: 'b0': no image has this name\n" in output
    assert "... and 10 more" in output
    unused = pd.read_csv(tmp_path / "out" / "metadata_unused.csv", keep_default_na=False)
    assert unused["cell"].tolist() == ["", *(f"b{number}" for number in range(30))]
    assert unused.iloc[0].to_dict() == {"line": 1, "column": "side", "cell": "", "reason": "the model has no such field"}


def test_patients_pictures_are_for_their_owner_only_and_no_cell_is_a_formula(tmp_path, monkeypatch):
    about = {"name": "plain", "classes": [], "signatures": {"serving_default": {"inputs": {}, "outputs": {}}}}
    monkeypatch.setattr(prediction, "open_exported", lambda path: prediction.ExportedModel(path, about, None))

    def predicted(model, pictures, answers, folder):
        prediction.write_bytes(folder / "masks" / "a.png", b"mask")
        yield [{"file": picture.path, "problem": "", "quality": ""} for picture in pictures]

    monkeypatch.setattr(prediction, "predict_files", predicted)
    (tmp_path / "in").mkdir()
    for name in (b"=cmd.jpg", b"+a.jpg", b"-a.jpg", b"@a.jpg", b"plain.jpg", b"bytes\xff.jpg"):
        (tmp_path / "in" / os.fsdecode(name)).touch()
    out, umask = tmp_path / "out", os.umask(0o022)
    try:
        assert predict.main([str(tmp_path), str(tmp_path / "in"), "--out", str(out)]) == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in (out, *out.rglob("*"))}
    assert modes == {"out": 0o700, "out/masks": 0o700, "out/masks/a.png": 0o600, "out/predictions.csv": 0o600}
    cells = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(cells) == sorted(["'+a.jpg,", "'-a.jpg,", "'=cmd.jpg,", "'@a.jpg,", "bytes\\udcff.jpg,", "plain.jpg,"])


def test_names_that_are_too_long_are_cut(tmp_path):
    for end in "ab":
        (tmp_path / f"{'x' * 245}{end}.jpg").touch()
    pictures, notes = prediction.find_pictures([tmp_path])
    assert [len(picture.name) for picture in pictures] == [230, 232]
    assert "The names of these are too long" in notes[0]
