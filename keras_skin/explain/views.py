"""Views of a model: the same layers and weights with fewer inputs or outputs, for explainers and measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_skin.registry import UserError

METADATA = "metadata"


def explained_output(model: keras.Model) -> str:
    """Returns the output to explain: `label`, or `mask` for a model without it.

    Raises:
        UserError: if the model has neither.
    """
    outputs = model.output
    if not isinstance(outputs, Mapping) or "label" in outputs:
        return "label"
    if "mask" in outputs:
        return "mask"
    raise UserError(f"The model has no output 'label' or 'mask' to explain. Its outputs: {', '.join(outputs)}.")


def image_names(model: keras.Model) -> list[str]:
    """Returns the names of the inputs that are images (B, H, W, C)."""
    if not isinstance(model.input, Mapping):
        return ["image"]
    return [name for name, tensor in model.input.items() if len(tensor.shape) == 4]


def select_inputs(model: keras.Model, inputs: Mapping[str, Any]) -> Any:
    """Returns those of `inputs` that the model takes."""
    return {name: inputs[name] for name in model.input} if isinstance(model.input, Mapping) else inputs["image"]


def predict(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the probabilities of the model's outputs `label` and `mask`, float32."""
    outputs = model(select_inputs(model, inputs), training=False)
    outputs = outputs if isinstance(outputs, Mapping) else {"label": outputs}
    squash = {"label": keras.ops.softmax, "mask": keras.ops.sigmoid}
    return {
        name: keras.ops.convert_to_numpy(function(keras.ops.cast(outputs[name], "float32")))
        for name, function in squash.items()
        if name in outputs
    }


def in_batches(function: Callable[[Any], Any], inputs: Any, batch_size: int) -> Any:
    """Calls a function on batches of its inputs and joins the results.

    Args:
        function: of inputs like `inputs`, (B, ...) each, to a structure of tensors (B, ...).
        inputs: a structure of arrays (N, ...), N >= 1.
        batch_size: rows per call.

    Returns:
        The function's structure of float32 arrays (N, ...).
    """
    results = []
    for start in range(0, len(keras.tree.flatten(inputs)[0]), batch_size):
        batch = keras.tree.map_structure(lambda array, start=start: tf.constant(array[start : start + batch_size]), inputs)
        results.append(keras.tree.map_structure(lambda part: np.asarray(keras.ops.cast(part, "float32")), function(batch)))
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *results)


def logits_view(model: keras.Model, output: str) -> keras.Model:
    """Returns the model with the same inputs and one output; layers that only other outputs need are not computed."""
    outputs = model.output
    return keras.Model(model.input, outputs[output] if isinstance(outputs, Mapping) else outputs)


class OneImageView:
    """A model as a function of one image: its other inputs are constant, and its one output is the class.

    tf-explain and shap's image explainers need such a model: a callable with `output` and `predict`.

    Args:
        model: the model.
        probabilities: return probabilities instead of logits.
    """

    def __init__(self, model: keras.Model, probabilities: bool = True) -> None:
        self.model = logits_view(model, "label")
        self.name = image_names(model)[0]
        self.probabilities = probabilities
        self.output = self.model.output
        self._constants: dict[str, tf.Variable] = {}
        self._call = tf.function(self.__call__, autograph=False, reduce_retracing=True)

    def hold(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Sets the constant inputs to those of one sample (without the batch axis)."""
        if not isinstance(self.model.input, Mapping):
            return
        for name in self.model.input:
            if name == self.name:
                continue
            value = np.asarray(inputs[name], np.float32)[None]
            if name in self._constants:
                self._constants[name].assign(value)
            else:
                self._constants[name] = tf.Variable(value, trainable=False)

    def __call__(self, images: Any, training: bool = False) -> tf.Tensor:
        """Returns (B, classes) float32 for images (B, H, W, 3)."""
        images = tf.convert_to_tensor(images, tf.float32)
        inputs: Any = images
        if isinstance(self.model.input, Mapping):
            count = tf.shape(images)[0]
            inputs = {name: tf.repeat(value, count, axis=0) for name, value in self._constants.items()}
            inputs[self.name] = images
        logits = tf.cast(self.model(inputs, training=False), tf.float32)
        return tf.nn.softmax(logits) if self.probabilities else logits

    def predict(self, images: np.ndarray, batch_size: int | None = None, **_: Any) -> np.ndarray:
        """The same for many images, without a progress bar."""
        return in_batches(self._call, np.asarray(images, np.float32), batch_size or 32)


def metadata_view(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cuts the model in two where the metadata join the image features.

    Explaining metadata needs hundreds of passes per patient. The layers that do not depend on metadata, nearly all of a network,
    run once.

    Returns:
        Two models. The first maps the model's inputs to the image features at the cut: the list of tensors that do not depend on
        metadata but feed a layer that does. It is None for a model without such tensors. The second maps the list of these
        features and, last, the metadata (B, M) to the logits (B, classes).

    Raises:
        UserError: if the model has no input `metadata` that its label depends on.
    """
    if not isinstance(model.input, Mapping) or METADATA not in model.input or explained_output(model) != "label":
        raise UserError("Only a model with the input 'metadata' and the output 'label' has metadata to explain.")
    metadata = model.input[METADATA]
    label = model.output["label"] if isinstance(model.output, Mapping) else model.output
    tensors = _features_at_cut(label, metadata)
    if tensors is None:
        raise UserError("The model's output 'label' does not depend on its input 'metadata', so there is nothing to explain.")
    return keras.Model(model.input, tensors) if tensors else None, keras.Model([*tensors, metadata], label)


def _features_at_cut(label: Any, metadata: Any) -> list[Any] | None:
    """Returns the symbolic tensors before `label` that do not depend on `metadata` but feed operations that do; None if `label`
    does not depend on it."""
    depends: dict[int, bool] = {id(metadata): True}
    frontier: dict[int, Any] = {}
    stack = [label]  # no recursion: networks are deeper than Python's stack
    while stack:
        tensor = stack[-1]
        history = tensor._keras_history
        sources = history.operation._inbound_nodes[history.node_index].input_tensors
        unknown = [source for source in sources if id(source) not in depends]
        if id(tensor) not in depends and unknown:
            stack += unknown
            continue
        stack.pop()
        if id(tensor) in depends:
            continue
        depends[id(tensor)] = any(depends[id(source)] for source in sources)
        if depends[id(tensor)]:
            frontier.update({id(source): source for source in sources if not depends[id(source)]})
    return list(frontier.values()) if depends[id(label)] else None


@contextmanager
def third_party_explainer(seed: int) -> Iterator[None]:
    """Prepares a block that calls tf-explain or shap, and restores everything afterwards.

    Both draw from NumPy's global generator, which is seeded, and rebuild graphs, about which TensorFlow's warnings are silenced.
    """
    state, logger = np.random.get_state(), tf.get_logger()  # noqa: NPY002 - theirs, not ours
    level = logger.level
    np.random.seed(seed)  # noqa: NPY002
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        logger.setLevel(level)
