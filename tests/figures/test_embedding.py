import numpy as np
import pytest
from PIL import Image

from keras_skin.figures import embedding as module
from keras_skin.figures.embedding import MIN_IMAGES, embedding_figure, tsne

BANNER = (0xB0, 0x00, 0x20)
CLASSES = ("mel", "nv", "bcc")


def clusters(images=60, seed=0):
    """Features of three classes far from one another, and the classes."""
    generator = np.random.default_rng(seed)
    truth = np.arange(images) % 3
    return generator.normal(size=(images, 16)) + 30 * np.eye(16)[truth], np.array(CLASSES)[truth]


def test_neighbours_stay_neighbours():
    features, truth = clusters()
    positions = tsne(features, seed=1)
    assert positions.shape == (60, 2)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + np.diag([np.inf] * 60)
    assert (truth[distances.argmin(axis=1)] == truth).all()
    np.testing.assert_array_equal(tsne(features, seed=1), positions)


def test_is_written_and_marked_where_synthetic(tmp_path):
    features, truth = clusters()
    predicted = np.where(np.arange(60) % 7 == 0, "nv", truth)
    plain = embedding_figure(features, truth, predicted, CLASSES, tmp_path / "deep" / "plain.png", "Features")
    marked = embedding_figure(features, truth, predicted, CLASSES, tmp_path / "marked.png", synthetic=True)
    for path, expected in ((plain, False), (marked, True)):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert pixels.std() > 0
        assert ((pixels == BANNER).all(axis=2).sum() > 1000) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "marked.png"]


def test_every_image_is_drawn_in_both_panels_and_errors_are_crossed(tmp_path, monkeypatch):
    features, truth = clusters(30)
    predicted = truth.copy()
    predicted[[2, 5, 6]] = "mel"  # the last of them is one
    figures = []
    drawing = module.new_figure

    class RecordedFigure:
        def __init__(self, *arguments):
            self.context = drawing(*arguments)

        def __enter__(self):
            figures.append(self.context.__enter__())
            return figures[-1]

        def __exit__(self, *error):
            return self.context.__exit__(*error)

    monkeypatch.setattr(module, "new_figure", RecordedFigure)
    embedding_figure(features, truth, predicted, (*CLASSES, "scc"), tmp_path / "figure.png")
    by_class, by_success = figures[0].axes
    assert [text.get_text() for text in by_class.get_legend().get_texts()] == [
        "mel (n = 10)",
        "nv (n = 10)",
        "bcc (n = 10)",
        "scc (n = 0)",
    ]
    assert [text.get_text() for text in by_success.get_legend().get_texts()] == ["right (28)", "wrong (2)"]
    positions = tsne(features)
    right, wrong = (points.get_offsets().data for points in by_success.collections)
    np.testing.assert_allclose(wrong, positions[[2, 5]])
    assert len(right) == 28
    np.testing.assert_allclose(by_class.collections[1].get_offsets().data, positions[truth == "nv"])


@pytest.mark.parametrize("features", [np.zeros((40, 3)), np.random.default_rng(0).normal(size=(MIN_IMAGES - 1, 3))])
def test_nothing_to_lay_out_writes_nothing(tmp_path, features):
    names = ["mel"] * len(features)
    assert embedding_figure(features, names, names, CLASSES, tmp_path / "figure.png") is None
    assert not list(tmp_path.iterdir())


def test_the_minimum_of_images_is_enough(tmp_path):
    features, truth = clusters(MIN_IMAGES)
    assert embedding_figure(features, truth, truth, CLASSES, tmp_path / "figure.png")


def test_rows_must_agree(tmp_path):
    features, truth = clusters()
    with pytest.raises(ValueError, match="60 rows of features, 59 true and 60 predicted"):
        embedding_figure(features, truth[1:], truth, CLASSES, tmp_path / "figure.png")
