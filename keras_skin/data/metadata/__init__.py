"""Clinical metadata (age, sex, site, ...) as numbers: fitted on the training split, saved in the run, exported with the model.

encoder = fit_metadata(training_table, {"age": "numeric", "sex": "categorical"}, missing="mask")
matrix = encoder.transform(table)  # (N, encoder.width) float32
tensor = encoder.graph({"age": ages, "sex": sexes})  # the same in TensorFlow
"""

from keras_skin.data.metadata.encoder import Field, MetadataEncoder
from keras_skin.data.metadata.fit import fit_metadata

__all__ = ["Field", "MetadataEncoder", "fit_metadata"]
