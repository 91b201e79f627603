import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.evaluation.comparison import compare, group_by_seed, name_sides
from keras_skin.evaluation.measured_run import read_runs
from keras_skin.figures import comparison as figures
from keras_skin.figures.style import GREEN, RED
from tests.evaluation.run_folders import SIZE, images, truth_of, write_run

BANNER = (0xB0, 0x00, 0x20)
SEVEN = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def like(picture, colour, tolerance=30):
    rgb = np.array(matplotlib.colors.to_rgb(colour)) * 255
    return (np.abs(picture - rgb).max(axis=2) < tolerance).sum()


def load(dataset, image_id):
    assert dataset == "isic2016"
    return np.full((*SIZE, 3), 120, np.uint8), truth_of(int(image_id[-7:]))


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder, table = tmp_path_factory.mktemp("runs"), images()
    paths = [write_run(folder / "unet", table, experiment="unet_isic2016", tasks=("mask",), shift=1)]
    paths += [write_run(folder / "resnet", table, experiment="resnet50_isic2016", tasks=("label",))]
    paths += [write_run(folder / f"jrl{seed}", table, overrides=[f"train.seed={seed}"], seed=seed, shift=3) for seed in range(2)]
    return group_by_seed(read_runs(paths, "test"))


def drawings(sides):
    comparison = compare(sides, resamples=50)
    rows = [row for row in comparison.rows if row.metric in ("dsc", "auc")]
    return {
        "differences": lambda path, **mark: figures.differences(comparison, rows, path, **mark),
        "curves": lambda path, **mark: figures.curves(sides, ("benign", "malignant"), path, **mark),
        "outlines": lambda path, **mark: figures.outlines(sides, load, path, count=2, **mark),
    }


@pytest.mark.parametrize("name", ["differences", "curves", "outlines"])
def test_figures_are_written_and_synthetic_ones_are_marked(sides, tmp_path, name):
    draw = drawings(sides)[name]
    plain = pixels(draw(tmp_path / "deep" / "plain.png"))
    assert plain.std() > 0
    assert not (plain == BANNER).all(axis=2).any()
    assert ((pixels(draw(tmp_path / "marked.png", synthetic=True)) == BANNER).all(axis=2)).sum() > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "marked.png"]  # no temporary file remains


def test_a_side_has_the_same_colour_in_every_figure(sides, tmp_path):
    draw = drawings(sides)
    curves, differences = (pixels(draw[name](tmp_path / f"{name}.png")) for name in ("curves", "differences"))
    blue, red, green = figures.CYCLE[:3]  # unet, resnet, jrl
    assert like(curves, blue) == 0
    assert like(curves, red) > 200
    assert like(curves, green) > 200
    assert like(differences, green) > 200
    outlines = pixels(draw["outlines"](tmp_path / "outlines.png"))
    assert like(outlines, figures.OUTLINES[0]) > 300
    assert like(outlines, figures.OUTLINES[1]) == 0
    assert like(outlines, figures.OUTLINES[2]) > 300


@pytest.mark.parametrize(("skill", "wrong"), [(50, False), (-50, True)])
def test_the_class_of_a_run_without_masks_stands_under_the_outlines_of_the_others(tmp_path, skill, wrong):
    """Figure 5 of paper 001: the outlines of two runs, and the class of a third, which is right or wrong."""
    table = images()
    paths = [
        write_run(tmp_path / f"unet{seed}", table, experiment="unet_isic2016", tasks=("mask",), seed=seed) for seed in (0, 1)
    ]
    paths += [write_run(tmp_path / "resnet", table, experiment="resnet50_isic2016", tasks=("label",), skill=skill)]
    runs = read_runs(paths, "test")
    picture = pixels(figures.outlines(name_sides([[run] for run in runs]), load, tmp_path / "outlines.png", count=2))
    assert (like(picture, RED) > 50) == wrong
    assert (like(picture, GREEN) > 50) != wrong


def test_classes_have_a_panel_each(tmp_path):
    table = images(60, SEVEN)
    runs = [
        write_run(tmp_path / name, table, classes=SEVEN, tasks=("label",), experiment=experiment)
        for name, experiment in (("a", "resnet50_isic2016"), ("b", "jrl_isic2016"))
    ]
    sides = group_by_seed(read_runs(runs, "test"))
    path = figures.curves(sides, SEVEN, tmp_path / "curves.png")
    height, width = pixels(path).shape[:2]
    assert width > height  # two rows of four


def test_images_on_which_the_runs_differ_most_come_first_and_none_twice(sides):
    pair = [sides[0], sides[2]]
    rows = figures.most_different(pair, 3)
    spread = (pair[0].predictions["dsc"] - pair[1].predictions["dsc"]).abs()
    assert rows["runs differ most"] == list(spread.sort_values(ascending=False, kind="stable").index[:3])
    assert not set(rows["typical"]) & set(rows["runs differ most"])
    assert len(rows["typical"]) == 3
    averaged = np.mean([run.predictions["dsc"] for run in sides[2].runs], axis=0)
    np.testing.assert_allclose(sides[2].predictions["dsc"], averaged)


def test_heat_maps_of_the_same_image_stand_side_by_side(tmp_path):
    colours, table = {"resnet": (200, 20, 20), "jrl": (20, 20, 200)}, images()
    paths = [
        write_run(tmp_path / "resnet", table, experiment="resnet50_isic2016", tasks=("label",)),
        write_run(tmp_path / "jrl", table),
        write_run(tmp_path / "unet", table, experiment="unet_isic2016", tasks=("mask",)),
    ]
    sides = group_by_seed(read_runs(paths, "test"))
    assert figures.heat_maps(sides, tmp_path / "none.png") is None
    for path in paths[:2]:
        rows = pd.read_csv(path / "predictions.csv", dtype=str)
        rows["split"], rows["image_id"] = "validation", "V" + rows["image_id"]
        both = pd.concat([pd.read_csv(path / "predictions.csv", dtype=str), rows])
        both.to_csv(path / "predictions.csv", index=False)
        for row in rows.head(4 if path.name == "jrl" else 3).itertuples():
            folder = path / "explain" / row.image_id
            folder.mkdir(parents=True)
            Image.new("RGB", (60, 50), colours[path.name]).save(folder / f"grad_cam_{row.predicted}.png")
    without = pixels(figures.heat_maps(sides, tmp_path / "without.png", count=2))
    for folder in (path / "explain" for path in paths[:2]):
        for item in folder.iterdir():
            Image.new("RGB", (60, 50), (20, 200, 20)).save(item / "image.png")
    with_originals = pixels(figures.heat_maps(sides, tmp_path / "with.png", count=2))
    thirds = np.array_split(with_originals, 3, axis=1)
    for third, colour in zip(thirds, ((20, 200, 20), *colours.values()), strict=True):
        assert like(third, np.array(colour) / 255) > 5000
    assert like(without, np.array((20, 200, 20)) / 255) == 0
    for item in (paths[1] / "explain").iterdir():
        (item / "image.png").unlink()
    for item in (paths[0] / "explain").iterdir():
        (item / "image.png").unlink()
    sheet = pixels(figures.heat_maps(sides, tmp_path / "sheet.png", count=2))
    left, right = sheet[:, : sheet.shape[1] // 2], sheet[:, sheet.shape[1] // 2 :]
    for half, name, other in ((left, "resnet", "jrl"), (right, "jrl", "resnet")):
        assert like(half, np.array(colours[name]) / 255) > 5000
        assert like(half, np.array(colours[other]) / 255) == 0


def test_nothing_to_draw_writes_nothing(sides, tmp_path):
    path = tmp_path / "figure.png"
    assert figures.curves(sides[:1], ("benign", "malignant"), path) is None
    assert figures.outlines(sides[:2], load, path) is None
    assert figures.differences(compare(sides, resamples=0), [], path) is None
    assert not path.exists()
