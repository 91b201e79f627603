"""The features of several runs side by side: of the same images, in the same order, with the separation of the classes."""

import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_score

from keras_skin.evaluation.comparison import group_by_seed
from keras_skin.evaluation.measured_run import read_embedding, read_runs
from keras_skin.figures import embedding_comparison as module
from keras_skin.figures.embedding_comparison import embedding_comparison
from keras_skin.run_folder import EMBEDDINGS
from tests.evaluation.run_folders import images, write_run

CLASSES = ("mel", "nv", "bcc")


def save(path, image_ids, features, split="test"):
    np.savez(
        path / EMBEDDINGS, image_ids=np.array(list(image_ids), str), features=features.astype("float32"), split=np.array(split)
    )


@pytest.fixture
def runs(tmp_path):
    """Two runs of the same images: tight classes, and none; the second saved its images in another order and not all of them."""
    table = images(30, CLASSES)
    paths = [
        write_run(tmp_path / name, table, CLASSES, experiment, tasks=("label",))
        for name, experiment in (("a", "jrl_isic2016"), ("b", "resnet50_isic2016"))
    ]
    generator = np.random.default_rng(0)
    tight = 9 * np.eye(3)[table["label"].map(CLASSES.index)] + generator.normal(size=(30, 3))
    loose = generator.normal(size=(30, 3))
    order = generator.permutation(30)[:24]
    save(paths[0], table["image_id"], tight)
    save(paths[1], table["image_id"].iloc[order], loose[order])
    return paths, table, tight, loose, order


def test_both_panels_show_the_images_that_both_runs_saved(runs, tmp_path, monkeypatch):
    paths, table, tight, loose, order = runs
    drawn, titles = [], []
    monkeypatch.setattr(module, "tsne", lambda features: drawn.append(features) or features[:, :2])
    finish = module.finish
    monkeypatch.setattr(module, "finish", lambda axes, title: titles.append(title) or finish(axes, title))
    path = embedding_comparison(group_by_seed(read_runs(paths, "test")), "test", CLASSES, tmp_path / "figure.png")
    with Image.open(path) as image:
        assert np.asarray(image).std() > 0
    rows = np.sort(order)
    for features, expected in zip(drawn, (tight, loose), strict=True):
        np.testing.assert_allclose(features, expected[rows], atol=1e-5)
    labels = table["label"].iloc[rows]
    for title, letter, features in zip(titles, "AB", (tight, loose), strict=True):
        value = float(re.fullmatch(rf"{letter}, silhouette of the true classes ([+-]0\.\d+)", title)[1])
        assert value == pytest.approx(silhouette_score(features[rows], labels), abs=1e-3)


def test_a_run_without_features_of_this_split_is_left_out(runs, tmp_path):
    paths, table, tight, *_ = runs
    sides = group_by_seed(read_runs(paths, "test"))
    save(paths[1], table["image_id"], tight, "validation")
    assert read_embedding(paths[1], "test") is None
    assert embedding_comparison(sides, "test", CLASSES, tmp_path / "figure.png") is None
    save(paths[1], [f"other_{number}" for number in range(30)], tight)
    assert embedding_comparison(sides, "test", CLASSES, tmp_path / "figure.png") is None
    assert not (tmp_path / "figure.png").exists()
