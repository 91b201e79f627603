"""One token per column."""

import numpy as np
from keras import ops

from keras_skin.layers.column_tokens import ColumnTokens


def test_each_number_scales_the_vector_of_its_column() -> None:
    layer = ColumnTokens(2)
    layer.build((None, 3))
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    layer.set_weights([vectors])
    result = ops.convert_to_numpy(layer(np.array([[1.0, 0.0, -2.0]], "float32")))
    np.testing.assert_allclose(result, [[[1, 2], [0, 0], [-10, -12]]])
