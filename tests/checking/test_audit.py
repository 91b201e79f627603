"""The whole check of a data set: what it gathers, in which order, and what it leaves out."""

import shutil

import cv2
import numpy as np
import pytest

from keras_skin.checking import audit
from keras_skin.checking.audit import check_dataset
from keras_skin.checking.places import resolve, siblings
from keras_skin.data.datasets import readers


@pytest.mark.slow
def test_a_good_data_set_passes_and_what_it_shares_is_a_warning(stand_ins, place):
    here = place(stand_ins, "isic2016")
    steps = []
    check = check_dataset(here, siblings(here, str(stand_ins)), lambda step, done, total: steps.append((step, done, total)))
    assert check.passed
    assert check.synthetic
    assert check.compared == ("isic2017",)
    assert [finding.severity for finding in check.findings] == ["warning", "warning"]
    assert ("reading files", 32, 32) in steps
    assert ("comparing with isic2017", 16, 16) in steps
    assert check_dataset(here).findings == ()


def test_faults_stand_worst_first_and_fail_the_check(scratch, place):
    images = scratch / "isic2016" / "ISBI2016_ISIC_Part1_Training_Data"
    (images / "ISIC_0000003.jpg").unlink()
    (images / "ISIC_0000004.jpg").write_bytes(b"")
    check = check_dataset(place(scratch, "isic2016"))
    assert not check.passed
    severities = [finding.severity for finding in check.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert [finding.title for finding in check.findings if finding.severity == "error"] == [
        "1 row without an image in the train split: 23 of 24 images are here.",
        "1 image that cannot be used.",
    ]
    assert "24 images in the train split, fewer than the 900 published." in [finding.title for finding in check.findings]


def test_a_data_set_that_cannot_be_read_is_not_compared_but_the_check_goes_on(scratch, place):
    (scratch / "isic2017" / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text("nonsense\n1,2\n")
    here = place(scratch, "isic2016")
    check = check_dataset(here, siblings(here, str(scratch)))
    assert check.compared == ()
    assert any("Not compared with isic2017" in finding.title for finding in check.findings)


@pytest.fixture(scope="module")
def rigged(tmp_path_factory):
    """A stand-in of HAM10000 whose melanomas have another JPEG quality and black corners, and whose `dx_type` tells all."""
    root = tmp_path_factory.mktemp("rigged")
    readers.get("ham10000").info["render"](
        root / "ham10000", 1, {"MEL": 40, "NV": 40, "BKL": 0, "BCC": 0, "AKIEC": 0, "DF": 0, "VASC": 0}, (64, 80)
    )
    lines = (root / "ham10000" / "HAM10000_metadata").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    for row in rows:
        file = next((root / "ham10000").rglob(f"{row['image_id']}.jpg"))
        image = cv2.imread(str(file))
        if row["dx"] == "mel":
            for corner in (image[:8, :8], image[-8:, :8], image[:8, -8:], image[-8:, -8:]):
                corner[:] = 0
            cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 50])
        row["dx_type"] = "histo" if row["dx"] == "mel" else "follow_up"
    table = "\n".join([lines[0], *(",".join(row[name] for name in header) for row in rows)])
    (root / "ham10000" / "HAM10000_metadata").write_text(table + "\n")
    return check_dataset(resolve("ham10000", str(root)))


@pytest.mark.slow
def test_the_shortcut_audit_warns_of_files_and_tells_of_fields_that_are_never_inputs(rigged):
    by_name = {shortcut.what: shortcut for shortcut in rigged.shortcuts}
    assert by_name[audit.FILE].auc_interval[0] > 0.8
    assert {name for name, _ in by_name[audit.FILE].strongest} & {"file_bytes", "dark_corners"}
    assert by_name[audit.NEVER].auc > 0.99
    assert by_name[audit.CLINICAL].images == 80
    severities = {
        finding.title.split(" alone")[0]: finding.severity for finding in rigged.findings if "Shortcut" in finding.title
    }
    assert severities[f"Shortcut: {audit.FILE}"] == "warning"
    assert severities[f"Shortcut: {audit.NEVER}"] == "info"


@pytest.mark.slow
@pytest.mark.parametrize("name", readers.names())
def test_every_stand_in_can_be_checked_and_passes(name, tmp_path):
    info = readers.get(name).info
    info["render"](tmp_path / name, 0, None, (48, 64))
    check = check_dataset(resolve(name, str(tmp_path)))
    assert check.passed, [finding.title for finding in check.findings]
    assert len(check.classes) == len(check.classes["split"].unique()) * (1 + len(info["classes"]))
    assert all(shortcut.not_measured or np.isfinite(shortcut.auc) for shortcut in check.shortcuts)


def test_the_real_defects_are_named(real_data):
    """Of ISIC 2016 a sixth of the images, of PH2 all six: the whole takes longer than a test should."""
    check = check_dataset(resolve("ph2_sample", str(real_data)))
    assert [finding.title for finding in check.findings if finding.severity == "error"] == [
        "194 rows without an image: 6 of 200 images are here."
    ]
    assert check.classes.loc[check.classes["class"] == "malignant", ["here", "published"]].to_numpy().tolist() == [[2, 40]]


@pytest.mark.slow
def test_missing_images_of_the_real_isic_2016_are_counted(real_data, tmp_path):
    source, copy = real_data / "isic2016", tmp_path / "isic2016"
    for folder in ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"):
        (copy / folder).mkdir(parents=True)
        for file in sorted((source / folder).iterdir())[:60]:
            (copy / folder / file.name).symlink_to(file)
    for table in source.glob("*.csv"):
        shutil.copy(table, copy)
    titles = [finding.title for finding in check_dataset(resolve("isic2016", str(tmp_path))).findings]
    assert "840 rows without an image in the train split: 60 of 900 images are here." in titles
    assert "The test split has no images here: its table names 379 images." in titles
    assert any("masks are coarse: drawn as polygons" in title for title in titles)
