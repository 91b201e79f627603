import json
import pickle

import numpy as np
import pandas as pd
import pytest

from keras_skin.evaluation.measured_run import read_embedding, read_runs
from keras_skin.registry import UserError
from keras_skin.run_folder import EMBEDDINGS
from tests.evaluation.run_folders import BINARY, images, write_run


def refused(paths, split="test"):
    with pytest.raises(UserError) as caught:
        read_runs(paths, split)
    return str(caught.value)


def test_a_run_comes_back_as_it_was_written(tmp_path):
    table = images()
    a = write_run(tmp_path / "a", table.sample(frac=1, random_state=0), stamp="groups may straddle")
    b = write_run(tmp_path / "b", table, experiment="unet_isic2016", tasks=("mask",), seed=3)
    first, second = read_runs([a, b], "test")
    assert first.predictions["image_id"].tolist() == second.predictions["image_id"].tolist() == table["image_id"].tolist()
    assert first.predictions["group_id"].tolist() == table["group_id"].tolist()
    written = pd.read_csv(a / "predictions.csv", float_precision="round_trip").set_index("image_id")
    read = first.predictions.set_index("image_id")
    for column in ("probability_malignant", "dsc", "hd95_relative"):
        np.testing.assert_array_equal(read[column], written[column].reindex(read.index))  # to the last bit
    assert first.classes == BINARY
    assert first.stamps["segmentation"]["dsc"] == "groups may straddle"
    assert not second.stamps["segmentation"]
    assert first.published["segmentation"]["dsc"] == 0.8948
    assert not first.folder.synthetic
    for row, image_id in enumerate(first.predictions["image_id"]):
        counts = first.predictions.iloc[row]
        assert first.mask(row).sum() == counts["tp"] + counts["fp"], image_id
    (b / "masks" / "test" / f"{table['image_id'][0]}.png").unlink()
    assert second.mask(0) is None


def test_folders_that_are_no_finished_runs_of_their_own_are_all_named(tmp_path):
    fine = write_run(tmp_path / "fine")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    unfinished = write_run(tmp_path / "begun", finished=False)
    lost = write_run(tmp_path / "lost")
    (lost / "metrics.json").unlink()
    (tmp_path / "link").symlink_to(fine)
    message = refused([fine, empty, unfinished, tmp_path / "nowhere", lost, fine, tmp_path / "link"])
    assert f"'{empty}' is not a run folder: it has no experiment.json and run.json. It holds: notes.txt." in message
    assert "nowhere' is not a run folder: it has no experiment.json and run.json. It does not exist." in message
    for path in (unfinished, lost):
        assert f"The run in '{path}' has not finished. Resume it: python -m keras_skin.run --resume {path}" in message
    assert f"'{fine}' is given twice." in message
    assert f"'{tmp_path / 'link'}' is given twice (also as '{fine}')." in message


def test_one_run_is_not_enough(tmp_path):
    assert "at least two runs" in refused([write_run(tmp_path / "a")])


def test_a_part_that_was_not_measured_is_named(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    assert "measured no 'tset'. Did you mean 'test'? It has test." in refused([a, b], "tset")


def test_other_images_are_named_on_both_sides(tmp_path):
    table = images()
    a = write_run(tmp_path / "a", table.iloc[:-1])
    b = write_run(tmp_path / "b", table.iloc[9:])
    message = refused([a, b])
    assert f"9 images only in '{a}': ISIC_0000000, ISIC_0000001, ISIC_0000002, ISIC_0000003, ISIC_0000004 and 4 more." in message
    assert f"1 image only in '{b}': ISIC_0000039." in message


def test_every_run_is_held_against_the_first(tmp_path):
    table = images()
    paths = [write_run(tmp_path / name, table) for name in "ab"]
    paths += [write_run(tmp_path / "c", table.iloc[:-1]), write_run(tmp_path / "d", table.iloc[1:])]
    message = refused(paths)
    assert "ISIC_0000039" in message
    assert "ISIC_0000000" in message
    assert f"{tmp_path / 'b'}'" not in message


def test_other_labels_groups_data_sets_masks_and_classes_are_refused(tmp_path):
    table = images()
    a = write_run(tmp_path / "a", table)
    table.loc[3, "label"] = {"benign": "malignant", "malignant": "benign"}[table["label"][3]]
    table.loc[[5, 6], "group_id"] = ["X", "Y"]
    message = refused([a, write_run(tmp_path / "b", table)])
    assert "1 image with another label: ISIC_0000003." in message
    assert "2 images with another patient or lesion (group): ISIC_0000005, ISIC_0000006." in message

    elsewhere = write_run(tmp_path / "c", images(dataset="isic2017"))
    assert "the data set is isic2016 in the first, isic2017 in the second" in refused([a, elsewhere])

    redrawn = write_run(tmp_path / "d")
    predictions = pd.read_csv(redrawn / "predictions.csv")
    predictions.loc[7, ["tp", "tn"]] += [1, -1]
    predictions.to_csv(redrawn / "predictions.csv", index=False)
    assert "1 image with another true mask: ISIC_0000007." in refused([a, redrawn])

    turned = write_run(tmp_path / "e", images(), classes=BINARY[::-1])
    assert "the classes are benign, malignant in the first, malignant, benign in the second" in refused(
        [a, write_run(tmp_path / "f", pd.read_csv(a / "splits.csv"), classes=BINARY[::-1])]
    ), turned


def test_rendered_images_are_not_compared_with_real_ones_nor_with_other_rendered_ones(tmp_path):
    real, demo = write_run(tmp_path / "real"), write_run(tmp_path / "demo", record={"demo": True})
    assert f"'{demo}' is SYNTHETIC (a demo on rendered images), '{real}' is not." in refused([real, demo])
    assert "is SYNTHETIC" in refused([demo, real])
    other = write_run(tmp_path / "other", record={"demo": True}, overrides=["train.seed=5"])
    assert "demo images are drawn from train.seed, which is 0 and 5" in refused([demo, other])
    assert all(run.folder.synthetic for run in read_runs([demo, write_run(tmp_path / "again", record={"demo": True})], "test"))


def test_a_cross_validation_is_read_from_its_folds(tmp_path):
    table = images(30)
    whole = write_run(tmp_path / "whole", table)
    predictions = pd.read_csv(whole / "predictions.csv").assign(fold=[1 + number % 3 for number in range(30)])
    predictions["group_id"] = table["group_id"]
    predictions.to_csv(whole / "predictions.csv", index=False)
    table.assign(fold=predictions["fold"])[["dataset", "image_id", "group_id", "label", "fold"]].to_csv(
        whole / "splits.csv", index=False
    )
    record = json.loads((whole / "run.json").read_text())
    for fold in (1, 2, 3):
        (whole / f"fold_{fold}" / "masks").mkdir(parents=True)
        (whole / f"fold_{fold}" / "run.json").write_text(json.dumps({"classes": record["classes"]}))
    for image_id, fold in predictions[["image_id", "fold"]].itertuples(index=False):
        target = whole / f"fold_{fold}" / "masks" / "test"
        target.mkdir(exist_ok=True)
        (whole / "masks" / "test" / f"{image_id}.png").rename(target / f"{image_id}.png")
    del record["classes"]
    (whole / "run.json").write_text(json.dumps(record))
    run, _ = read_runs([whole, write_run(tmp_path / "plain", table)], "test")
    assert run.classes == BINARY
    assert run.mask(4).sum() == predictions["tp"][4] + predictions["fp"][4]


def test_damaged_files_are_named(tmp_path):
    fine = write_run(tmp_path / "fine")
    for number, (name, text, expected) in enumerate(
        [
            ("metrics.json", "{", "metrics.json cannot be read as JSON"),
            ("predictions.csv", "image_id,dataset\n", "predictions.csv has no column split, label"),
            ("predictions.csv", "image_id,dataset,split,label,dsc\na,b,test,benign,x\n", "a text where a number belongs"),
            ("splits.csv", "image_id,dataset,group_id\n", "do not list the same images"),
        ]
    ):
        broken = write_run(tmp_path / f"broken{number}")
        (broken / name).write_text(text)
        assert expected in refused([fine, broken])


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"split": "test"})])
def test_damaged_features_are_refused_without_advice_to_unpickle(tmp_path, content):
    (tmp_path / EMBEDDINGS).write_bytes(content)
    with pytest.raises(UserError, match=r"embeddings\.npz is damaged, or another program wrote it") as caught:
        read_embedding(tmp_path, "test")
    assert "pickle" not in str(caught.value)


def test_features_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / EMBEDDINGS, split=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="is damaged"):
        read_embedding(tmp_path, "test")
