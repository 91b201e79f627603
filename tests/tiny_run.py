"""A run of seconds for tests: the joint model with few features on small rendered images."""

TINY = [
    "image.size=[32, 64]",
    "model.filters=[2, 3, 4, 4, 4, 4]",
    "train.epochs=2",
    "train.steps_per_epoch=3",
    "train.batch_size=4",
    "train.precision=float32",
    "train.deterministic=true",
    "explain.images=2",
]


def arguments(*more: str, overrides: list[str] = TINY) -> list[str]:
    """Arguments of `python -m keras_skin.run` for a tiny demo run."""
    return [*more, "--demo", *(item for text in overrides for item in ("--set", text))]
