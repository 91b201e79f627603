"""Whether a run had all images of its data sets."""

from __future__ import annotations

from keras_skin.data.datasets.records import ExclusionKind
from keras_skin.run_folder import RunFolder


def missing_images(folder: RunFolder) -> dict[str, int]:
    """The number of images that each data set's tables list and that were not on the disk; data sets without any are left out.

    Args:
        folder: a finished run. One that was written before excluded.csv had the column `kind` gives an empty dictionary.
    """
    excluded = (folder.folds or [folder])[0].excluded
    if "kind" not in excluded:
        return {}
    excluded = excluded[excluded["kind"] == ExclusionKind.MISSING_IMAGE]
    return {str(name): int(count) for name, count in excluded.groupby("dataset")["image_id"].nunique().items()}
