"""Views of a model: the same layers and weights with fewer inputs or outputs, as explainers and measurements want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_skin.registry import UserError

METADATA = "metadata"


def explained_output(model: keras.Model) -> str:
    """The output whose evidence is explained: the class, or, where there is none, the mask.

    Raises:
        UserError: if the model has neither.
    """
    outputs = model.output
    if not isinstance(outputs, Mapping) or "label" in outputs:
        return "label"
    if "mask" in outputs:
        return "mask"
    raise UserError(f"The model has neither an output 'label' nor 'mask' to explain; it has: {', '.join(outputs)}.")


def input_names(model: keras.Model) -> list[str]:
    """Names of the model's inputs; a model that takes one tensor alone takes `image`."""
    return list(model.input) if isinstance(model.input, Mapping) else ["image"]


def image_names(model: keras.Model) -> list[str]:
    """Names of the inputs that are images (B, H, W, C)."""
    if not isinstance(model.input, Mapping):
        return ["image"]
    return [name for name, tensor in model.input.items() if len(tensor.shape) == 4]


def select_inputs(model: keras.Model, inputs: Mapping[str, Any]) -> Any:
    """What the model takes of `inputs`."""
    return {name: inputs[name] for name in model.input} if isinstance(model.input, Mapping) else inputs["image"]


def predict(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Probabilities of the outputs `label` and `mask`, those that there are, float32."""
    outputs = model(select_inputs(model, inputs), training=False)
    outputs = outputs if isinstance(outputs, Mapping) else {"label": outputs}
    squash = {"label": keras.ops.softmax, "mask": keras.ops.sigmoid}
    return {
        name: keras.ops.convert_to_numpy(function(keras.ops.cast(outputs[name], "float32")))
        for name, function in squash.items()
        if name in outputs
    }


def logits_view(model: keras.Model, output: str) -> keras.Model:
    """The model with the same inputs and one output; what only the others need is not computed."""
    outputs = model.output
    return keras.Model(model.input, outputs[output] if isinstance(outputs, Mapping) else outputs)


class OneImageView:
    """A model as a function of one image: its other inputs are held, and its one output is the class.

    tf-explain and shap's image explainers want this. Callable, with `output`, `predict` and `inputs` as they use them.

    Args:
        model: the model.
        probabilities: give probabilities instead of logits.
    """

    def __init__(self, model: keras.Model, probabilities: bool = True) -> None:
        self.model = logits_view(model, "label")
        self.name = image_names(model)[0]
        self.probabilities = probabilities
        self.output = self.model.output
        self._held: dict[str, tf.Variable] = {}
        self._call = tf.function(self.__call__, autograph=False, reduce_retracing=True)

    def hold(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Sets the other inputs to those of one sample (without the batch axis)."""
        if not isinstance(self.model.input, Mapping):
            return
        for name in self.model.input:
            if name == self.name:
                continue
            value = np.asarray(inputs[name], np.float32)[None]
            if name in self._held:
                self._held[name].assign(value)
            else:
                self._held[name] = tf.Variable(value, trainable=False)

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """(B, classes) float32 of images (B, H, W, 3)."""
        images = tf.convert_to_tensor(images, tf.float32)
        inputs: Any = images
        if isinstance(self.model.input, Mapping):
            count = tf.shape(images)[0]
            inputs = {name: tf.repeat(value, count, axis=0) for name, value in self._held.items()}
            inputs[self.name] = images
        logits = tf.cast(self.model(inputs, training=False), tf.float32)
        return tf.nn.softmax(logits) if self.probabilities else logits

    def predict(self, images: np.ndarray, batch_size: int | None = None, **_: Any) -> np.ndarray:
        """The same for many images, without a progress bar."""
        size = batch_size or 32
        parts = [self._call(tf.constant(images[start : start + size], tf.float32)) for start in range(0, len(images), size)]
        return np.concatenate([part.numpy() for part in parts])


def metadata_view(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cuts the model where metadata join what was seen in the images.

    Explaining metadata needs hundreds of passes per patient. What does not depend on them, which is nearly all of a network, is
    computed once.

    Returns:
        Two models: from the model's inputs to the list of tensors that do not depend on metadata but meet what does (None if
        there are none); and from the list of those tensors and, last, the metadata (B, M) to the logits (B, classes).

    Raises:
        UserError: if the model has no input `metadata` that its label depends on.
    """
    if not isinstance(model.input, Mapping) or METADATA not in model.input or explained_output(model) != "label":
        raise UserError("Only a model with the input 'metadata' and the output 'label' has metadata to explain.")
    metadata = model.input[METADATA]
    label = model.output["label"] if isinstance(model.output, Mapping) else model.output
    tensors = _meeting(label, metadata)
    if tensors is None:
        raise UserError("The model's label does not depend on its input 'metadata': there is nothing to explain.")
    return keras.Model(model.input, tensors) if tensors else None, keras.Model([*tensors, metadata], label)


def _meeting(label: Any, metadata: Any) -> list[Any] | None:
    """The symbolic tensors that do not depend on `metadata` but are inputs of operations that do, on the way to `label`; None if
    `label` does not depend on it."""
    depends: dict[int, bool] = {id(metadata): True}
    frontier: dict[int, Any] = {}
    waiting = [label]  # no recursion: networks are deeper than Python's stack
    while waiting:
        tensor = waiting[-1]
        history = tensor._keras_history
        sources = history.operation._inbound_nodes[history.node_index].input_tensors
        unknown = [source for source in sources if id(source) not in depends]
        if id(tensor) not in depends and unknown:
            waiting += unknown
            continue
        waiting.pop()
        if id(tensor) in depends:
            continue
        depends[id(tensor)] = any(depends[id(source)] for source in sources)
        if depends[id(tensor)]:
            frontier.update({id(source): source for source in sources if not depends[id(source)]})
    return list(frontier.values()) if depends[id(label)] else None


@contextmanager
def others_code(seed: int) -> Iterator[None]:
    """For code of tf-explain and shap: seeds NumPy's global generator, which they draw from, and silences TensorFlow's advice on
    graphs that they build anew; both are put back afterwards."""
    before, logger = np.random.get_state(), tf.get_logger()  # noqa: NPY002 - theirs, not ours
    level = logger.level
    np.random.seed(seed)  # noqa: NPY002
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        logger.setLevel(level)
