"""Made-up cases: the numbers asked for, repeated lesions, and the columns that are expected."""

import numpy as np
import pandas as pd
import pytest

from keras_skin.data.datasets.stand_ins import clinical
from keras_skin.registry import UserError

DEFAULT = {"MEL": 6, "NV": 9}


def test_counts_and_repeats():
    rows = clinical.rows_of("ham10000", 0, {"NV": 12}, DEFAULT, None)
    assert rows["dx"].value_counts().to_dict() == {"nv": 12, "mel": 6}
    assert rows["image_id"].is_unique
    assert rows["lesion_id"].duplicated().sum() == 4
    assert len(rows[["lesion_id", "dx", "age", "sex"]].drop_duplicates()) == rows["lesion_id"].nunique()
    assert rows.equals(clinical.rows_of("ham10000", 0, {"NV": 12}, DEFAULT, None))
    assert not rows.equals(clinical.rows_of("ham10000", 1, {"NV": 12}, DEFAULT, None))


def test_five_groups_of_each_class_from_eight_images():
    """Enough for five folds."""
    flags = clinical.ISIC2019_FLAGS[:-1]
    rows = clinical.rows_of("isic2019", 0, None, dict.fromkeys(flags, 8), None)
    groups = rows["lesion_id"].where(rows["lesion_id"] != "", rows["image"])
    assert groups.groupby(clinical.labels(rows, flags)).nunique().min() >= 5


def test_a_given_table_becomes_text():
    table = pd.DataFrame({"image": ["a"], "split": [np.nan]}, index=[7])
    rows = clinical.rows_of("isic2018_task1", 0, None, {}, table)
    assert rows.to_dict("records") == [{"image": "a", "split": ""}]
    with pytest.raises(UserError, match="has no split; expected image, split"):
        clinical.rows_of("isic2018_task1", 0, None, {}, table[["image"]])
    with pytest.raises(UserError, match="not both"):
        clinical.rows_of("isic2018_task1", 0, {}, {}, table)
