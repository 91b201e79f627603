"""Measures the time of a training step and of an inference: models of keras_skin, and the same U-Net in PyTorch.

    python tools/benchmark_step.py --models unet jrl --json step.json

keras_skin and PyTorch run in separate processes, in turn. Random images, Dice loss and binary cross-entropy, Adam. The first
repeat is not counted. docs/performance.md explains the rows.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from benchmark_sides import Side, add_output_options, has_torch, machine, report, serve, take_turns, versions

PRECISIONS = ("float32", "bfloat16")
LOSSES = {"mask": {"name": "dice_binary_crossentropy"}, "label": {"name": "categorical_crossentropy"}}
LEARNING_RATE = 1e-3
EPSILON = 1e-7  # of Adam; Keras' default
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.1  # of batch normalisation; PyTorch's momentum is one minus Keras'


def images_and_masks(batch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images (B, H, W, 3) float32 in 0..255, and masks (B, H, W, 1) float32 with a disc."""
    images = np.random.default_rng(0).uniform(0, 255, (batch, *size, 3)).astype(np.float32)
    down, across = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    disc = (down**2 + across**2 < 0.25).astype(np.float32)
    return images, np.broadcast_to(disc[np.newaxis, :, :, np.newaxis], (batch, *size, 1)).copy()


def milliseconds(call: Callable[[], object], steps: int) -> float:
    """Returns the mean time of a call, which must return only after it has computed its result."""
    started = time.perf_counter()
    for _ in range(steps):
        call()
    return 1e3 * (time.perf_counter() - started) / steps


# keras_skin


def keras_side(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[str, int], Any]]:
    """Measures the models of keras_skin."""
    import keras
    import tensorflow as tf

    from keras_skin.models import create_model
    from keras_skin.training.compile import compile_model
    from keras_skin.training.optimizers import make_optimizer

    size, arguments = tuple(settings["size"]), settings["arguments"]

    @functools.cache
    def model(name: str, precision: str) -> Any:
        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else precision)
        built = create_model(name, image_size=size, **arguments)
        optimizer = make_optimizer({"name": "adam", "learning_rate": LEARNING_RATE, "epsilon": EPSILON}, epochs=1, steps=1)
        losses = {key: LOSSES[key] for key in built.output}
        return compile_model(built, losses, optimizer, metrics=False)

    @functools.cache
    def call(name: str, task: str, precision: str, batch: int) -> Callable[[], object]:
        images, masks = images_and_masks(batch, size)
        chosen = model(name, precision)
        if task == "training":
            labels = np.eye(2, dtype=np.float32)[np.arange(batch) % 2]
            targets = {key: tf.constant({"mask": masks, "label": labels}[key]) for key in chosen.output}
            inputs = {"image": tf.constant(images)}
            return lambda: chosen.train_on_batch(inputs, targets)
        infer, image = tf.function(functools.partial(chosen, training=False)), tf.constant(images)
        return lambda: [output.numpy() for output in infer({"image": image}).values()]

    def measure(row: str, repeat: int) -> float:
        name, task, precision, batch = json.loads(row)
        return milliseconds(call(name, task, precision, batch), settings["steps"])

    names = settings["models"]
    parameters = {name: sum(int(np.prod(weight.shape)) for weight in model(name, "float32").trainable_weights) for name in names}
    device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return {"parameters": parameters, "device": device}, measure


# PyTorch


def torch_unet(filters: Sequence[int]) -> Any:
    """Builds the architecture of `keras_skin.models.UNet` in PyTorch.

    The convolutions with stride 2 pad both sides; Keras pads one side. This moves the features by a pixel and costs the same.

    Args:
        filters: number of features of each level, finest first.

    Returns:
        A module from images (B, 3, H, W) float32 in 0..255 to mask logits (B, 1, H, W) float32.
    """
    import torch
    from torch import nn

    def block(channels: int, features: int, stride: int = 1) -> nn.Sequential:
        convolution = nn.Conv2d(channels, features, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        return nn.Sequential(convolution, nn.BatchNorm2d(features, NORM_EPSILON, NORM_MOMENTUM), nn.ReLU(inplace=True))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (3, *filters)
            self.encoder = nn.ModuleList(
                nn.Sequential(block(widths[level], width, 1 if level == 0 else 2), block(width, width))
                for level, width in enumerate(filters)
            )
            below = list(zip(filters[-2::-1], filters[:0:-1], strict=True))
            self.upsample = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, 2) for width, deep in below)
            self.decoder = nn.ModuleList(nn.Sequential(block(2 * width, width), block(width, width)) for width, _ in below)
            self.head = nn.Conv2d(filters[0], 1, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            x, skips = image / 255, []
            for level in self.encoder:
                x = level(x)
                skips.append(x)
            for upsample, level, skip in zip(self.upsample, self.decoder, skips[-2::-1], strict=True):
                x = level(torch.cat([upsample(x), skip], dim=1))
            with torch.autocast(image.device.type, enabled=False):  # as in keras_skin, the head is float32 under every policy
                return self.head(x.float())

    return UNet()


def torch_loss(logits: Any, masks: Any, smooth: float = 1.0) -> Any:
    """Returns the mean of `DiceBinaryCrossentropy` over the images; logits and masks are (B, 1, H, W) float32."""
    import torch

    crossentropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
    probability = torch.sigmoid(logits)
    overlap = (probability * masks).sum(dim=(1, 2, 3))
    total = probability.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3))
    return crossentropy + (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def torch_side(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[str, int], Any]]:
    """Measures the same U-Net, channels last, with autocast for bfloat16, compiled with `--compile`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = tuple(settings["size"])

    def build() -> Any:
        return torch_unet(settings["filters"]).to(device, memory_format=torch.channels_last)

    @functools.cache
    def model(precision: str) -> tuple[Any, Any]:
        built = build()
        optimizer = torch.optim.Adam(built.parameters(), LEARNING_RATE, eps=EPSILON, fused=True)
        return torch.compile(built) if settings["compile"] else built, optimizer

    @functools.cache
    def call(task: str, precision: str, batch: int) -> Callable[[], object]:
        arrays = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in images_and_masks(batch, size))
        images, masks = (tensor.to(device).contiguous(memory_format=torch.channels_last) for tensor in arrays)
        unet, optimizer = model(precision)

        def autocast() -> Any:
            return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

        def train() -> float:
            unet.train()
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                logits = unet(images)
            loss = torch_loss(logits, masks)
            loss.backward()
            optimizer.step()
            return loss.item()

        def infer() -> Any:
            unet.eval()
            with torch.inference_mode(), autocast():
                return unet(images).cpu().numpy()

        return train if task == "training" else infer

    def measure(row: str, repeat: int) -> float:
        _, task, precision, batch = json.loads(row)
        return milliseconds(call(task, precision, batch), settings["steps"])

    parameters = sum(parameter.numel() for parameter in build().parameters())
    return {"parameters": {"unet": parameters}, "device": device.upper().replace("CUDA", "GPU")}, measure


# The benchmark


def row_title(name: str, side: str, task: str, precision: str, batch: int) -> str:
    """Returns the title of a row."""
    return f"{name} ({'PyTorch' if side == 'torch' else 'keras_skin'}), {task}, batch {batch}, {precision}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["unet", "jrl"], default=["unet", "jrl"])
    add_output_options(parser)
    parser.add_argument("--filters", nargs="+", type=int, metavar="N", help="features of each level (default: the paper's)")
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement, which is their mean")
    parser.add_argument("--compile", action="store_true", help="compile the PyTorch model with torch.compile")
    parser.add_argument("--side", choices=["keras", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        serve(keras_side if options.side == "keras" else torch_side)
        return 0
    from keras_skin.models.unet import FILTERS

    filters = options.filters or list(FILTERS)
    settings = {key: getattr(options, key) for key in ("models", "size", "steps", "compile")}
    settings |= {"filters": filters, "arguments": {"filters": filters}}
    ours = Side(__file__, "keras", settings)
    sides = [(ours, name) for name in options.models]
    if has_torch():
        torch = Side(__file__, "torch", settings)
        sides.append((torch, "unet"))
        if "unet" in options.models and torch.facts["parameters"]["unet"] != ours.facts["parameters"]["unet"]:
            sys.exit(f"The two U-Nets differ: {ours.facts['parameters']} and {torch.facts['parameters']} parameters.")
    tasks = [("training", options.batch), ("inference", options.batch), *([("inference", 1)] if options.batch != 1 else [])]
    rows = take_turns(
        [
            (side, json.dumps([name, task, precision, batch]), row_title(name, side.name, task, precision, batch))
            for task, batch in tasks
            for precision in PRECISIONS
            for side, name in sides
        ],
        options.repeats,
        "ms",
    )
    for row in rows:
        row |= dict(zip(("model", "task", "precision", "batch"), json.loads(row.pop("row")), strict=True))
    facts = {side.name: side.facts for side, _ in sides}
    for side in dict.fromkeys(side for side, _ in sides):
        side.close()
    result = {
        "benchmark": "step",
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "size": "x".join(map(str, options.size)),
            "filters": "-".join(map(str, filters)),
            "repeats": options.repeats,
            "steps": options.steps,
            "compile": options.compile,
            "devices": ", ".join(f"{name}: {value['device']}" for name, value in facts.items()),
        },
        "parameters": {name: value["parameters"] for name, value in facts.items()},
        "rows": rows,
    }
    report(result, options.json, options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
