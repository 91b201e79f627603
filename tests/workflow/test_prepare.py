"""What a run sees: parts that share no image, and an account of everything that was left out."""

import shutil

import pandas as pd
import pytest

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import MissingData
from keras_skin.data.splits.splits import straddling_groups
from keras_skin.experiment import load_experiment
from keras_skin.registry import UserError
from keras_skin.workflow.prepare import describe, prepare_data, render_demo, shorten
from tests.tiny_run import stratified


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return render_demo(load_experiment("jrl_isic2016"), folder, seed=0)


def keys(prepared, split):
    return set(prepared.rows(split)["image_id"])


@pytest.mark.slow
def test_parts_are_disjoint_and_added_melanomas_leave_out_tested_images(demo):
    experiment = load_experiment("jrl_isic2016")
    prepared = prepare_data(experiment, demo)
    assert prepared.tested == ["validation", "test", "external/ph2"]
    parts = [keys(prepared, split) for split in ("train", "validation", "test", "external/ph2")]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))
    train = prepared.rows("train")
    added = train[train["dataset"] == "isic2017"]
    assert len(added)
    assert set(added["label"]) == {"malignant"}
    reasons = prepared.excluded[prepared.excluded["dataset"] == "isic2017"]["reason"]
    assert reasons.str.contains("held out").any()
    assert reasons.str.contains("already in the training split").any()
    assert any("left out" in note for note in prepared.notes)


def test_another_test_set_replaces_the_official_one_which_stays_out_of_training(demo):
    with_isic, with_ph2 = prepare_data(load_experiment("jrl_isic2016"), demo), prepare_data(load_experiment("jrl_ph2"), demo)
    assert set(with_ph2.rows("test")["dataset"]) == {"ph2"}
    assert keys(with_ph2, "train") == keys(with_isic, "train")
    assert not keys(with_isic, "test") & keys(with_ph2, "train")
    assert any("not used" in note for note in with_ph2.notes)


def test_a_missing_optional_set_is_reported_and_not_used(demo, tmp_path):
    for name in ("isic2016", "ph2"):
        shutil.copytree(demo / name, tmp_path / name)
    prepared = prepare_data(load_experiment("jrl_ph2"), tmp_path)
    assert any("isic2017 was not found. It is optional" in note for note in prepared.notes)
    assert set(prepared.rows("train")["dataset"]) == {"isic2016"}


def test_a_missing_external_set_is_left_out_only_where_it_is_optional(demo, tmp_path):
    shutil.copytree(demo / "isic2016", tmp_path / "isic2016")
    with pytest.raises(MissingData, match="ph2"):
        prepare_data(load_experiment("jrl_isic2016"), tmp_path)
    optional = load_experiment("jrl_isic2016", ['data.external=[{"name": "ph2", "optional": true}]'])
    prepared = prepare_data(optional, tmp_path)
    assert prepared.tested == ["validation", "test"]
    assert any("ph2 was not found. It is optional" in note for note in prepared.notes)


def test_missing_set_says_where_it_looked_and_how_to_get_it(tmp_path):
    with pytest.raises(MissingData) as error:
        prepare_data(load_experiment("jrl_ph2"), tmp_path)
    for part in (str(tmp_path), "ISBI2016_ISIC_Part1_Training_Data", "CC-0", "--demo"):
        assert part in str(error.value)


def test_training_images_that_are_tested_on_are_an_error_or_left_out_of_training(demo):
    overrides = ['data.external=[{"name": "isic2017"}]', "data.extra_train=[]"]
    with pytest.raises(UserError, match=r"Leak: .*external/isic2017") as error:
        prepare_data(load_experiment("jrl_isic2016", overrides), demo)
    assert 'Set leak_guard to "exclude"' in str(error.value)
    experiment = load_experiment("jrl_isic2016", [*overrides, "data.leak_guard=exclude"])
    prepared = prepare_data(experiment, demo)
    assert any("Leak guard" in note and "Left out" in note for note in prepared.notes)
    assert not keys(prepared, "external/isic2017") & (keys(prepared, "train") | keys(prepared, "validation"))
    assert prepared.excluded["reason"].str.contains("leak: .*external/isic2017").any()


HAM10000 = [*stratified("ham10000"), 'augmentation={"name": "none"}']


def test_the_protocol_of_the_papers_tears_lesions_apart_and_says_so(tmp_path):
    grouped = load_experiment("resnet50_isic2016", HAM10000)
    paper = load_experiment("resnet50_isic2016", [*HAM10000, "split.protocol=paper"])
    counts = {"MEL": 12, "NV": 40, "BCC": 12, "AKIEC": 10, "BKL": 12, "DF": 10, "VASC": 10}
    readers.get("ham10000").info["render"](tmp_path / "ham10000", counts=counts, size=(30, 40))
    grouped_data = prepare_data(grouped, tmp_path)
    assert grouped_data.warning == ""
    assert straddling_groups(grouped_data.table, grouped_data.table["split"]) == []
    torn = prepare_data(paper, tmp_path)
    straddling = len(straddling_groups(torn.table, torn.table["split"]))
    assert straddling > 0
    assert f"{straddling} of its" in torn.warning
    assert len(torn.table) == len(grouped_data.table) == sum(counts.values())
    assert [len(torn.rows(part)) for part in ("validation", "test")] == [21, 21]


def test_pictures_that_two_groups_share_stay_together(tmp_path):
    experiment = load_experiment("resnet50_isic2016", HAM10000)
    counts = dict.fromkeys(("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"), 10)
    root = tmp_path / "ham10000"
    readers.get("ham10000").info["render"](root, counts=counts, size=(30, 40))
    images = {path.stem: path for path in root.glob("HAM10000_images_part_*/*.jpg")}
    table = pd.read_csv(root / "HAM10000_metadata")
    naevi = table[table["dx"] == "nv"].drop_duplicates("lesion_id")["image_id"].tolist()[:4]
    for image_id in naevi[1:]:
        shutil.copyfile(images[naevi[0]], images[image_id])
    prepared = prepare_data(experiment, tmp_path)
    assert len(set(prepared.table[prepared.table["image_id"].isin(naevi)]["split"])) == 1


def test_parts_of_an_external_set(demo):
    with pytest.raises(UserError, match="has no split validatoin"):
        prepare_data(load_experiment("jrl_isic2016", ['data.external=[{"name": "isic2017", "parts": ["validatoin"]}]']), demo)


def test_unknown_class_is_named(demo):
    with pytest.raises(UserError, match="melanoma"):
        prepare_data(load_experiment("jrl_isic2016", ['data.extra_train.0.labels=["melanoma"]']), demo)


def test_trainings_with_other_seeds_are_measured_on_the_same_images(demo):
    splits = {
        text: keys(prepare_data(load_experiment("jrl_isic2016", [*stratified("isic2016"), text]), demo), "test")
        for text in ("train.seed=0", "train.seed=7", "split.seed=7")
    }
    assert splits["train.seed=0"] == splits["train.seed=7"] != splits["split.seed=7"]


def test_folds_test_every_image_once(demo):
    experiment = load_experiment("jrl_ph2_crossval", ["split.folds=3"])
    folds = [keys(prepare_data(experiment, demo, fold), "test") for fold in range(3)]
    assert len(set.union(*folds)) == sum(map(len, folds)) == 20


def test_shortened_parts_keep_both_classes(demo):
    prepared = shorten(prepare_data(load_experiment("jrl_isic2016"), demo), 4)
    for split in ("train", "validation", "test", "external/ph2"):
        part = prepared.rows(split)
        assert len(part) == 4
        assert part["label"].nunique() == 2
    assert set(prepared.rows("train")["dataset"]) == {"isic2016", "isic2017"}
    assert "train" in describe(prepared)


def test_all_images_are_trained_on_without_a_validation_split(demo):
    paper = prepare_data(load_experiment("jrl_isic2016_paper_protocol"), demo)
    usual = prepare_data(load_experiment("jrl_isic2016"), demo)
    assert keys(paper, "train") >= keys(usual, "train") | keys(usual, "validation")
    assert (paper.tested, paper.shown_split) == (["test", "external/ph2"], "test")
    assert usual.shown_split == "validation"
    assert keys(paper, "test") == keys(usual, "test") == set(paper.shown_rows["image_id"])
    assert any("no validation images: the weights of the last epoch are kept" in note for note in paper.notes)


def test_an_epoch_is_not_chosen_on_images_that_are_not_there(demo):
    message = r"(?s)validation split is empty.*train.monitor \"val_loss\".*split.validation \(0.0\).*train.monitor to 'last'"
    with pytest.raises(UserError, match=message):
        prepare_data(load_experiment("jrl_isic2016_paper_protocol", ["train.monitor=val_loss"]), demo)


@pytest.mark.slow
def test_real_images(real_data):
    """The 182 rows without an image, the melanomas of ISIC 2017 that may be added, and six PH2 cases (see datasets.md)."""
    prepared = prepare_data(load_experiment("jrl_ph2"), real_data)
    train, validation = prepared.rows("train"), prepared.rows("validation")
    assert (train["dataset"] == "isic2016").sum() + len(validation) == 718
    assert len(prepared.rows("test")) == 6
    missing = prepared.excluded[(prepared.excluded["dataset"] == "isic2016") & (prepared.excluded["split"] == "train")]
    assert len(missing) == 182
