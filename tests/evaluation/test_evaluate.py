import numpy as np
import pandas as pd
import pytest
from PIL import Image

from keras_skin.evaluation.evaluate import evaluate, sigmoid, softmax, summarise

CLASSES = ("benign", "malignant")


class Case:
    """Six images with masks of differing sizes, and a model whose answers are known."""

    def __init__(self, outputs=("mask", "label")):
        random = np.random.default_rng(0)
        self.small = np.zeros((6, 8, 8, 1), np.float32)
        for index in range(6):
            self.small[index, 2:6, 1 : 3 + index] = 1
        self.originals = {
            f"/masks/{index}": np.kron(small[..., 0], np.ones((3 + index, 2))) > 0 for index, small in enumerate(self.small)
        }
        self.table = pd.DataFrame(
            {
                "image_id": [f"im{index}" for index in range(6)],
                "group_id": list("aabbcc"),
                "mask": list(self.originals),
                "label": ["benign", "benign", "malignant", "benign", "malignant", "benign"],
                "dataset": "ph2",
                "split": "test",
            }
        )
        self.logits = {
            "mask": np.where(self.small > 0, 9.0, -9.0).astype(np.float32),
            "label": random.normal(size=(6, 2)).astype(np.float32),
            "embedding": np.zeros((6, 3)),
        }
        self.outputs = outputs

    def batches(self):
        for start, stop in ((0, 4), (4, 6)):
            yield {"image": np.arange(start, stop)}, {"mask": self.small[start:stop], "label": np.zeros((stop - start, 2))}

    def predict(self, inputs):
        return {key: self.logits[key][inputs["image"]] for key in (*self.outputs, "embedding")}

    def run(self, folder=None, **arguments):
        return evaluate(
            self.predict, self.batches(), self.table, CLASSES, self.originals.__getitem__, folder, resamples=50, **arguments
        )


def test_stable_activations():
    assert sigmoid(np.array([-1e4, 0.0, 1e4], np.float32)).tolist() == [0.0, 0.5, 1.0]
    assert softmax(np.array([[1e4, 0.0], [np.log(3), 0.0]])) == pytest.approx(np.array([[1.0, 0.0], [0.75, 0.25]]))


def test_joint_model(tmp_path):
    case = Case()
    result = case.run(tmp_path / "masks", groups=case.table["group_id"])
    assert set(result.metrics) == {"segmentation", "classification"}
    segmentation, classification = result.metrics["segmentation"], result.metrics["classification"]
    assert segmentation["dsc_model_size"]["value"] == 1.0
    assert 0.95 < segmentation["dsc"]["value"] <= 1.0
    assert segmentation["dsc"]["n"] == 6
    assert set(segmentation["iou"]) >= {"value", "ci95", "n"}
    predicted = case.logits["label"].argmax(axis=1)
    truth = np.array([0, 0, 1, 0, 1, 0])
    assert classification["accuracy"]["value"] == pytest.approx(np.mean(predicted == truth))
    assert result.confusion.sum() == 6
    assert result.notes == ()
    rows = result.predictions
    assert rows["image_id"].tolist() == case.table["image_id"].tolist()
    assert rows["dataset"].unique().tolist() == ["ph2"]
    assert rows["label"].tolist() == case.table["label"].tolist()
    np.testing.assert_allclose(rows[["probability_benign", "probability_malignant"]], softmax(case.logits["label"]))
    for index, truth_mask in enumerate(case.originals.values()):
        with Image.open(tmp_path / "masks" / f"im{index}.png") as image:
            written = np.asarray(image)
        assert written.dtype == bool
        assert written.shape == truth_mask.shape
        assert np.count_nonzero(written & truth_mask) == rows["tp"][index]
        assert np.count_nonzero(written & ~truth_mask) == rows["fp"][index]


@pytest.mark.parametrize(
    ("output", "task", "column"), [("mask", "segmentation", "dsc"), ("label", "classification", "predicted")]
)
def test_model_with_one_output(output, task, column):
    result = Case(outputs=(output,)).run()
    assert list(result.metrics) == [task]
    assert ("dsc" in result.predictions) == (column == "dsc")
    assert ("predicted" in result.predictions) == (column == "predicted")
    assert (result.confusion is None) == (task == "segmentation")


def test_batch_size_does_not_matter():
    case = Case()
    whole = evaluate(
        case.predict,
        [({"image": np.arange(6)}, {"mask": case.small})],
        case.table,
        CLASSES,
        case.originals.__getitem__,
        None,
        resamples=50,
    )
    assert whole.metrics == case.run().metrics


def test_images_without_truth_are_predicted_but_not_scored(tmp_path):
    case = Case()
    case.table.loc[1, "mask"] = ""
    case.table.loc[[0, 5], "label"] = ""
    result = case.run(tmp_path)
    assert result.metrics["segmentation"]["dsc"]["n"] == 5
    assert result.metrics["classification"]["accuracy"]["n"] == 4
    assert (tmp_path / "im1.png").is_file()
    assert result.predictions["dsc"].isna().tolist() == [False, True, False, False, False, False]
    assert result.predictions["predicted"].notna().all()
    assert any("without a true mask: 1 of 6" in note for note in result.notes)
    assert any("without a label: 2 of 6" in note for note in result.notes)


def test_no_truth_at_all():
    case = Case()
    case.table[["mask", "label"]] = ""
    result = case.run()
    assert result.metrics == {}
    assert len(result.predictions) == 6


def test_empty_and_missed_masks_are_said():
    case = Case()
    case.originals["/masks/0"][:] = False
    case.logits["mask"][:2] = -9
    result = case.run()
    assert result.metrics["segmentation"]["dsc"]["n"] == 5
    assert any("Empty true and empty predicted mask: 1" in note for note in result.notes)
    assert any("missed altogether (empty predicted mask): 1" in note for note in result.notes)
    assert np.isnan(result.predictions["dsc"][0])
    assert result.predictions["dsc"][1] == 0.0


def test_one_class_test_set_says_what_is_missing():
    case = Case()
    case.table["label"] = "benign"
    result = case.run()
    assert "auc" not in result.metrics["classification"]
    assert "tnr" in result.metrics["classification"]
    assert any("No image of class malignant" in note and "auc" in note for note in result.notes)


def test_masks_are_averaged_over_the_images_of_each_true_class():
    result = Case().run()
    rows, metrics = result.predictions, result.metrics["segmentation"]
    for name in CLASSES:
        own = rows[rows["label"] == name]
        assert metrics[f"dsc/{name}"]["value"] == pytest.approx(own["dsc"].mean())
        assert metrics[f"iou/{name}"]["value"] == pytest.approx(own["iou"].mean())
        assert metrics[f"dsc/{name}"]["n"] == len(own)
        assert len(metrics[f"dsc/{name}"]["ci95"]) == 2
    assert metrics["dsc/malignant"]["resamples_skipped"] > 0  # resamples without a malignant image
    case = Case()
    case.table["label"] = "benign"
    assert not [name for name in case.run().metrics["segmentation"] if "/" in name]  # it would repeat the mean over all


def test_mistakes_are_named():
    case = Case()
    case.table = case.table.iloc[:5]
    with pytest.raises(ValueError, match="more images than the table's 5 rows"):
        case.run()
    case = Case()
    case.table = pd.concat([case.table, case.table.iloc[:1]])
    with pytest.raises(ValueError, match="hold 6 images, the table has 7"):
        case.run()
    case = Case()
    case.table.loc[2, "label"] = "naevus"
    with pytest.raises(ValueError, match=r"\['naevus'\] are not among"):
        case.run()
    case = Case()
    case.logits["label"][4] = np.nan
    with pytest.raises(ValueError, match=r"'label' is not finite for 1 images .* im4"):
        case.run()
    with pytest.raises(ValueError, match="3 groups for 6 images"):
        Case().run(groups=[1, 2, 3])


@pytest.mark.parametrize("image_id", ["../outside", "a/b", "..", ""])
def test_image_ids_cannot_leave_the_folder(tmp_path, image_id):
    case = Case()
    case.table.loc[0, "image_id"] = image_id
    with pytest.raises(ValueError, match="cannot name a file"):
        case.run(tmp_path / "masks")
    assert not (tmp_path / "outside.png").exists()


def test_predictions_read_back_from_a_file_give_the_same_metrics(tmp_path):
    case = Case()
    case.table.loc[0, "label"] = ""
    result = case.run()
    result.predictions.to_csv(tmp_path / "predictions.csv", index=False)
    again = summarise(pd.read_csv(tmp_path / "predictions.csv", float_precision="round_trip"), CLASSES, resamples=50)
    assert again.metrics == result.metrics
    assert again.notes == result.notes
    pooled = summarise(pd.concat([result.predictions] * 2), CLASSES, groups=[*range(6)] * 2, resamples=50)
    assert pooled.metrics["segmentation"]["dsc"]["n"] == 12
    assert pooled.metrics["segmentation"]["dsc"]["ci95"] == pytest.approx(result.metrics["segmentation"]["dsc"]["ci95"])
