"""Small colour pictures as feature vectors: in which SMOTE finds neighbours before any network is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_skin.data.images.load import load_image

THUMBNAIL = (32, 32)


def thumbnail_features(paths: Sequence[str], components: int = 64, seed: int = 0) -> np.ndarray:
    """Principal components of standardised thumbnails of image files.

    Each colour value of each pixel is brought to mean 0 and variance 1 over these images, then the leading principal
    components are kept. Both are fitted on these images, so pass the training split only.

    Args:
        paths: N image files.
        components: number of components; fewer where there are fewer images.
        seed: decides the randomised decomposition.

    Returns:
        (N, C) float64 features with C the smaller of `components` and N.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    dataset = tf.data.Dataset.from_tensor_slices(list(paths))
    dataset = dataset.map(lambda path: load_image(path, THUMBNAIL), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    pixels = np.concatenate([batch.numpy() for batch in dataset.batch(256)]).reshape(len(paths), -1).astype(np.float64)
    reduced = PCA(min(components, len(paths)), svd_solver="randomized", random_state=seed)
    return reduced.fit_transform(StandardScaler().fit_transform(pixels))
