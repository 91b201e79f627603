"""A shift of the logits that only validation sees."""

import keras
import numpy as np

from keras_skin.training.best_weights import load_weights, save_weights
from keras_skin.training.fit import fit
from keras_skin.training.validation_shift import ValidationShift


def compiled(model, like):
    model.compile("adam", loss=like.loss, loss_weights={"mask": 0.5, "label": 0.5})
    return model


def test_validation_is_shifted_and_training_is_not(small, tmp_path):
    histories, weights = [], []
    for shift in (None, [0.7, -1.1]):
        keras.utils.set_random_seed(4)
        plain = small.compiled_model(dropout=0.0)
        model = compiled(plain if shift is None else ValidationShift(plain, shift), plain)
        folder = tmp_path / str(shift)
        result = fit(model, small.SmallData(), small.validation_data(), epochs=2, folder=folder, monitor="loss")
        histories.append(result.history)
        weights.append(plain.get_weights())
    np.testing.assert_array_equal(histories[0]["loss"], histories[1]["loss"])
    np.testing.assert_array_equal(histories[0]["val_mask_loss"], histories[1]["val_mask_loss"])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    batches = [(inputs, targets["label"]) for inputs, targets in small.validation_data().as_numpy_iterator()]
    logits = np.concatenate([plain(inputs, training=False)["label"] for inputs, _ in batches])
    truth = np.concatenate([labels for _, labels in batches])
    for history, shift in zip(histories, ([0.0, 0.0], [0.7, -1.1]), strict=True):
        loss = keras.losses.categorical_crossentropy(truth, logits + np.array(shift, "float32"), from_logits=True)
        np.testing.assert_allclose(history["val_label_loss"].iloc[-1], np.mean(loss), rtol=1e-5)


def test_its_weights_file_is_that_of_the_plain_model(small, tmp_path):
    plain, fresh = small.small_model(), small.small_model()
    save_weights(ValidationShift(plain, [1.0, 0.0]), tmp_path / "a.weights.h5")
    load_weights(fresh, tmp_path / "a.weights.h5")
    for one, other in zip(plain.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
