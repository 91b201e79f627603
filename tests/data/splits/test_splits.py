"""Parts: grouped, stratified, reproducible, and the same whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_skin.data.splits.splits import make_splits, read_splits, straddling_groups, write_splits
from keras_skin.registry import UserError

CLASSES = ("benign", "malignant")


def table_of(labels, groups=None, split=""):
    ids = [f"I{number:04d}" for number in range(len(labels))]
    columns = {"image_id": ids, "group_id": groups or ids, "label": labels, "split": split, "dataset": "toy"}
    return pd.DataFrame(columns, dtype=str)


@st.composite
def tables(draw):
    """Groups of one to four images, mostly of one label; at least six groups of each class."""
    rows = []
    for label, other in (CLASSES, CLASSES[::-1]):
        for number, size in enumerate(draw(st.lists(st.integers(1, 4), min_size=6, max_size=25))):
            rows += [(f"{label}{number}", label)] * size
            if size == 4 and draw(st.booleans()):
                rows[-1] = (f"{label}{number}", other)
    return table_of([label for _, label in rows], [group for group, _ in rows])


REQUESTS = st.one_of(
    st.fixed_dictionaries(
        {
            "scheme": st.just("stratified"),
            "validation": st.sampled_from([0.1, 0.2, 0.3]),
            "test": st.sampled_from([0.0, 0.15, 0.3]),
        }
    ),
    st.fixed_dictionaries(
        {
            "scheme": st.just("kfold"),
            "validation": st.sampled_from([0.0, 0.1, 0.2]),
            "folds": st.integers(2, 5),
            "fold": st.integers(0, 1),
        }
    ),
)


@settings(max_examples=25, deadline=None)
@given(table=tables(), request=REQUESTS, seed=st.integers(0, 2**31), shuffle=st.randoms(use_true_random=False))
def test_parts_are_grouped_reproducible_and_independent_of_the_order(table, request, seed, shuffle):
    split = make_splits(table, seed=seed, classes=CLASSES, **request)
    assert split.groupby(table["group_id"]).nunique().max() == 1
    assert split.equals(make_splits(table, seed=seed, classes=CLASSES, **request))
    order = list(table.index)
    shuffle.shuffle(order)
    shuffled = make_splits(table.loc[order], seed=seed, classes=CLASSES[::-1], **request)
    assert shuffled.sort_index().equals(split)


@settings(max_examples=25, deadline=None)
@given(table=tables(), request=REQUESTS, seed=st.integers(0, 99))
def test_shares_are_met_within_one_group_a_class(table, request, seed):
    split = make_splits(table, seed=seed, classes=CLASSES, **request)
    shares = {"test": request["test"] if "test" in request else 1 / request["folds"]}
    shares["validation"] = request["validation"] * (1 if request["scheme"] == "stratified" else 1 - shares["test"])
    majority = table.groupby("group_id")["label"].agg(lambda labels: labels.mode().iloc[0]).reindex(table["group_id"]).to_numpy()
    for label in CLASSES:
        here = majority == label
        for name, share in shares.items():
            assert abs((split[here] == name).sum() - share * here.sum()) <= 4 * (1 + (name == "validation"))
        assert (split[here] == "train").any()


@settings(max_examples=10, deadline=None)
@given(table=tables(), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_image_is_tested_in_exactly_one_fold(table, folds, seed):
    tested = [make_splits(table, "kfold", 0.1, folds=folds, fold=fold, seed=seed) == "test" for fold in range(folds)]
    assert (np.sum(tested, axis=0) == 1).all()


def test_singletons_are_split_to_the_image():
    table = table_of(["benign"] * 574 + ["malignant"] * 144, split="train")
    split = make_splits(table, "official", validation=0.15, classes=CLASSES)
    assert split[table["label"] == "benign"].value_counts().to_dict() == {"train": 488, "validation": 86}
    assert split[table["label"] == "malignant"].value_counts().to_dict() == {"train": 122, "validation": 22}
    split = make_splits(table, "stratified", validation=0.15, test=0.2, classes=CLASSES)
    assert split.value_counts().to_dict() == {"train": 718 - 144 - 108, "test": 144, "validation": 108}


def test_the_numbers_are_pinned():
    """The same on every machine and with every version: papers quote splits by their seed."""
    table = table_of([CLASSES[number % 3 == 0] for number in range(30)])
    split = make_splits(table, "stratified", validation=0.2, test=0.2, seed=7, classes=CLASSES)
    assert [number for number in table.index if split[number] == "test"] == [4, 9, 12, 19, 22, 29]
    assert [number for number in table.index if split[number] == "validation"] == [0, 1, 13, 15, 16, 25]


def test_the_test_part_does_not_depend_on_the_validation_share():
    table = table_of([CLASSES[number % 4 == 0] for number in range(80)])
    one, other = (make_splits(table, "stratified", validation, 0.2, seed=3) for validation in (0.1, 0.3))
    assert ((one == "test") == (other == "test")).all()


def test_seeds_differ():
    table = table_of([CLASSES[number % 4 == 0] for number in range(80)])
    assert not make_splits(table, "stratified", seed=1).equals(make_splits(table, "stratified", seed=2))


def test_a_validation_part_of_its_own_is_kept():
    table = table_of([*CLASSES] * 6, split=["train"] * 6 + ["validation"] * 2 + ["test"] * 4)
    assert make_splits(table, "official", validation=0.5).tolist() == table["split"].tolist()


def test_the_official_test_part_stays():
    table = table_of([*CLASSES] * 10, split=["train"] * 14 + ["test"] * 6)
    split = make_splits(table, "official", validation=0.3)
    assert split[14:].tolist() == ["test"] * 6
    assert split[:14].value_counts().to_dict() == {"train": 10, "validation": 4}
    assert make_splits(table, "official", validation=0.0).equals(table["split"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"scheme": "random"}, "no split scheme 'random'"),
        ({"scheme": "kfold", "protocol": "papers"}, "no split protocol 'papers'. Did you mean 'paper'"),
        ({"scheme": "kfolds"}, "Did you mean 'kfold'"),
        ({"scheme": "official"}, "12 of 12 images are in no official split"),
        ({"scheme": "stratified", "validation": 1.0}, "split.validation is 1.0"),
        ({"scheme": "stratified", "validation": 0.5, "test": 0.5}, "leave nothing for training"),
        ({"scheme": "stratified", "test": -0.1}, "split.test is -0.1"),
        ({"scheme": "kfold", "folds": 1}, "expected folds >= 2"),
        ({"scheme": "kfold", "folds": 3, "fold": 3}, "split.fold 3"),
        ({"scheme": "kfold", "folds": 5}, "5 folds need at least 5 groups of each class; 'malignant' has 2"),
        ({"scheme": "stratified", "classes": ["benign"]}, "labels malignant that are not among the classes benign"),
        ({"scheme": "file"}, "needs split.file"),
    ],
)
def test_impossible_requests(arguments, reason):
    with pytest.raises(UserError, match=reason):
        make_splits(table_of(["benign"] * 10 + ["malignant"] * 2), **arguments)


@pytest.mark.parametrize(
    ("counts", "request_", "expected"),
    [  # systems.md: the split that papers 000 and 004 print; HAM10000, complete cases of ISIC 2019, PAD-UFES-20
        ([6705, 1113, 1099, 514, 327, 142, 115], {"validation": 0.2, "test": 0.2}, (6009, 2003, 2003)),
        ([4346, 10632, 3245, 845, 2333, 235, 222, 622], {"validation": 0.08003, "test": 0.2}, (16185, 1799, 4496)),
        ([845, 730, 244, 235, 192, 52], {"validation": 0.16667, "test": 0.16667}, (1532, 383, 383)),
        ([6705, 1113, 1099, 514, 327, 142, 115], {"validation": 0.2, "test": 0.0}, (8012, 2003, 0)),
    ],
)
def test_the_papers_own_numbers(counts, request_, expected):
    table = table_of([label for label, count in zip("abcdefgh", counts, strict=False) for _ in range(count)])
    split = make_splits(table, "stratified", protocol="paper", **request_)
    assert tuple(int((split == name).sum()) for name in ("train", "validation", "test")) == expected
    for label in table["label"].unique():
        here = split[table["label"] == label]
        for name in ("validation", "test"):
            assert abs((here == name).sum() - request_[name] * len(here)) < 1


@settings(max_examples=15, deadline=None)
@given(table=tables(), request=REQUESTS, seed=st.integers(0, 99))
def test_the_protocol_of_the_papers_parts_images(table, request, seed):
    split = make_splits(table, protocol="paper", seed=seed, classes=CLASSES, **request)
    alone = table.assign(group_id=table["image_id"])
    assert split.equals(make_splits(alone, seed=seed, classes=CLASSES, **request))
    straddling = straddling_groups(table, split)
    assert straddling == sorted(group for group, rows in table.groupby("group_id") if len(set(split[rows.index])) > 1)


def test_the_protocol_of_the_papers_takes_straddling_groups_from_a_file_and_from_an_official_split(tmp_path):
    table = table_of(["benign"] * 4, ["a", "a", "b", "c"], split=["train", "test", "train", "train"])
    assert make_splits(table, "official", protocol="paper", validation=0).tolist() == table["split"].tolist()
    write_splits(table, tmp_path / "splits.csv")
    split = make_splits(table, "file", protocol="paper", file=tmp_path / "splits.csv")
    assert straddling_groups(table, split) == ["a"]
    with pytest.raises(UserError, match="or accept the leak"):
        make_splits(table, "file", file=tmp_path / "splits.csv")


def test_a_class_of_one_group_cannot_be_shared_out():
    with pytest.raises(UserError, match="class 'malignant' has 1 group"):
        make_splits(table_of(["benign"] * 10 + ["malignant"] * 3, [*"abcdefghij", "x", "x", "x"]), "stratified")


def test_an_official_split_that_tears_a_group_apart_is_refused():
    table = table_of(["benign"] * 4, ["a", "a", "b", "c"], split=["train", "test", "train", "train"])
    with pytest.raises(UserError, match="1 groups lie in more than one split: a"):
        make_splits(table, "official", validation=0)


def test_a_written_split_comes_back(tmp_path):
    table = table_of([*CLASSES] * 10)
    split = make_splits(table, "stratified", seed=4)
    write_splits(table.assign(split=split), tmp_path / "splits.csv")
    assert (tmp_path / "splits.csv").read_text().splitlines()[0] == "image_id,group_id,label,split,dataset"
    assert make_splits(table[::-1], "file", file=tmp_path / "splits.csv").sort_index().equals(split)
    assert list(tmp_path.iterdir()) == [tmp_path / "splits.csv"]


def test_rows_of_external_test_sets_and_of_other_data_sets_do_no_harm(tmp_path):
    table = table_of([*CLASSES] * 5)
    split = make_splits(table, "stratified", seed=4)
    others = table_of(["benign", "malignant"]).assign(dataset=["ph2", "isic2017"], split=["external/ph2", "train"])
    write_splits(pd.concat([table.assign(split=split), others]), tmp_path / "splits.csv")
    assert make_splits(table, "file", file=tmp_path / "splits.csv").equals(split)


def test_a_file_that_does_not_fit(tmp_path):
    table = table_of([*CLASSES] * 5).assign(split="train")
    write_splits(table[:8], tmp_path / "short.csv")
    with pytest.raises(UserError, match=r"2 images of the data have no row in .*I0008, I0009"):
        make_splits(table, "file", file=tmp_path / "short.csv")
    write_splits(table, tmp_path / "long.csv")
    with pytest.raises(UserError, match="2 images are not in the data"):
        make_splits(table[:8], "file", file=tmp_path / "long.csv")
    (tmp_path / "columns.csv").write_text("image_id,split\na,train\n")
    with pytest.raises(UserError, match="has no column group_id, label, dataset"):
        read_splits(tmp_path / "columns.csv")
    write_splits(table.assign(split="training"), tmp_path / "name.csv")
    with pytest.raises(UserError, match="line 2: found the split 'training'"):
        read_splits(tmp_path / "name.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_splits(tmp_path / "none.csv")
