"""Curriculum with stochastic hard-example replay: easy, common images first, rarer and harder ones later, hard ones again."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from keras_skin.data.pipeline.balance import Draw, register
from keras_skin.registry import UserError, did_you_mean

Pacing = Literal["linear", "root"]


@dataclass(frozen=True, kw_only=True)
class CurriculumDraw(Draw):
    """The samples of one epoch of a curriculum.

    Attributes:
        admitted: (N,) bool, which of the training images were admitted.
        replayed: (M,) bool, which of the samples come from the replay buffer.
    """

    admitted: np.ndarray
    replayed: np.ndarray


@register("curriculum", paper="000, sections 2.1 and 3", needs_losses=True)
class Curriculum:
    """A sampler that admits the images in the order of their difficulty and shows the hardest ones again.

    Difficulty is a running mean of an image's training loss. It starts at the rarity of the image's class, -log(share of the
    class), which is the cross-entropy of a model that knows the class frequencies and nothing else. Before each epoch all images
    are ranked: the easiest of them, as many as the pacing allows, are admitted; the hardest of those that were shown before are
    the replay buffer. Each of the N samples of the epoch is a replay with probability `replay_probability`, drawn from the buffer
    with equal probability; the others show every admitted image equally often, up to one. Once everything is admitted and
    without replay, that is an ordinary epoch.

    A hard image can lose its place to easier ones until the pacing admits all; the buffer may bring it back.

    A class without an admitted image is absent from the epoch. Losses stay finite: the logit of that class is only pushed down.
    Where the commonest class fills `start_share`, the first epochs show nothing else. This happens with two classes of 80 and 20
    per cent; on HAM10000, with 67 per cent of nevi, the default starts with nevi and most of the melanomas.

    An epoch is a function of its generator and of the decisions that earlier losses made. The decisions of every epoch are kept,
    two bits per image, so that past epochs can be drawn again, also after a resume. Future epochs cannot.

    Source: paper 000 (U-Net segmentation with multi-class classification on HAM10000), sections 2.1 and 3: "simpler more common
    samples and then ... more complex and less common situations", "combined with stochastic hard-example replay".

    **Deviations from the paper:** unknown. It gives neither a measure of difficulty nor pacing, buffer or probability; all of
    these, and the defaults, are this package's. The `root` pacing is the square-root competence of Platanios
    et al., Competence-based Curriculum Learning for Neural Machine Translation, NAACL 2019.

    Args:
        labels: (N,) class names of the training images.
        seed: decides the order of images of equal difficulty, such as those of one class at first.
        start_share: share of the images admitted in the first epoch, in (0, 1].
        full_after: number of epochs after which all images are admitted; 10 is half of the paper's 20 epochs.
        pacing: `"linear"` admits the same number of images with every epoch, `"root"` more of them in the first ones.
        replay_probability: probability that a sample is a replay, in [0, 1). The first epoch has nothing to replay.
        buffer_share: size of the buffer as a share of the images shown before, in (0, 1].
        momentum: weight of the past in the running loss, in [0, 1).

    Attributes:
        epoch: the epoch that the next losses belong to, from 0.
        difficulty: (N,) float64, the running losses.

    Raises:
        UserError: naming all settings that are out of their ranges.
    """

    def __init__(
        self,
        labels: Sequence[str] | np.ndarray,
        seed: int = 0,
        start_share: float = 0.75,
        full_after: int = 10,
        pacing: Pacing = "linear",
        replay_probability: float = 0.2,
        buffer_share: float = 0.2,
        momentum: float = 0.5,
    ) -> None:
        self._settings = {
            "start_share": start_share,
            "full_after": full_after,
            "pacing": pacing,
            "replay_probability": replay_probability,
            "buffer_share": buffer_share,
            "momentum": momentum,
        }
        _check(self._settings)
        self._labels = np.asarray(labels, str)
        if not len(self._labels):
            raise UserError("A curriculum needs training images; there are none.")
        self.start_share = start_share
        self.full_after = full_after
        self.pacing = pacing
        self.replay_probability = replay_probability
        self.buffer_share = buffer_share
        self.momentum = momentum
        self._ties = np.random.default_rng(seed).permutation(len(self._labels))
        self._shown = np.zeros(len(self._labels), bool)
        self.difficulty = class_rarity(self._labels)
        self._admitted: list[np.ndarray] = []
        self._buffers: list[np.ndarray] = []
        self._open_epoch()

    @property
    def epoch(self) -> int:
        return len(self._admitted) - 1

    def admitted_count(self, epoch: int) -> int:
        """Number of images that the pacing admits to an epoch."""
        done = min(1.0, epoch / self.full_after)
        if self.pacing == "linear":
            share = self.start_share + (1.0 - self.start_share) * done
        else:
            share = math.sqrt(self.start_share**2 + (1.0 - self.start_share**2) * done)
        return max(1, min(len(self._labels), round(share * len(self._labels))))

    def draw(self, labels: np.ndarray, epoch: int, rng: np.random.Generator) -> CurriculumDraw:
        """Chooses the samples of an epoch: as many as there are images.

        Args:
            labels: (N,) class names of the training images, those of the constructor.
            epoch: number of the epoch, from 0 to `self.epoch`.
            rng: random generator of this epoch.

        Raises:
            ValueError: if the labels differ, or the losses that decide on this epoch are not recorded yet.
        """
        if not np.array_equal(np.asarray(labels, str), self._labels):
            raise ValueError("The labels differ from those of this curriculum.")
        if not 0 <= epoch <= self.epoch:
            raise ValueError(f"Epoch {epoch} cannot be drawn: losses have decided on the epochs 0 to {self.epoch} so far.")
        admitted, buffer = np.flatnonzero(self._admitted[epoch]), np.flatnonzero(self._buffers[epoch])
        count = len(self._labels)
        replays = int(rng.binomial(count, self.replay_probability)) if len(buffer) else 0
        times, rest = divmod(count - replays, len(admitted))
        rows = [np.repeat(admitted, times), rng.choice(admitted, rest, replace=False)]
        if replays:
            rows.append(rng.choice(buffer, replays))
        return CurriculumDraw(
            np.concatenate(rows), admitted=self._admitted[epoch].copy(), replayed=np.arange(count) >= count - replays
        )

    def record(self, epoch: int, rows: np.ndarray, losses: np.ndarray) -> None:
        """Records the losses of an epoch that has ended, and decides on the next one.

        An image that was shown several times has the mean of its losses.

        Args:
            epoch: that epoch; it must be `self.epoch`.
            rows: (M,) int, its images, with repeats.
            losses: (M,) float, the loss of each.

        Raises:
            ValueError: if the epoch is another one, or a loss is not finite.
        """
        if epoch != self.epoch:
            raise ValueError(f"These are losses of epoch {epoch}, expected those of epoch {self.epoch}.")
        if not np.isfinite(losses).all():
            raise ValueError(f"Losses of epoch {epoch} are not finite.")
        size = len(self._labels)
        counts = np.bincount(rows, minlength=size)
        shown = counts > 0
        means = np.bincount(rows, weights=losses, minlength=size)[shown] / counts[shown]
        self.difficulty[shown] = self.momentum * self.difficulty[shown] + (1.0 - self.momentum) * means
        self._shown |= shown
        self._open_epoch()

    def get_state(self) -> dict[str, Any]:
        """Everything that later and past epochs depend on, as JSON values."""
        return {
            "settings": dict(self._settings),
            "images": len(self._labels),
            "epoch": self.epoch,
            "difficulty": _pack(self.difficulty.astype("<f8")),
            "shown": _pack(np.packbits(self._shown)),
            "admitted": _pack(np.packbits(self._admitted, axis=1)),
            "buffers": _pack(np.packbits(self._buffers, axis=1)),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from `get_state`.

        Raises:
            UserError: if the state belongs to other settings or another number of images.
        """
        size, epochs = len(self._labels), state["epoch"] + 1
        problems = [
            f"'{name}' was {value!r} and is now {self._settings.get(name)!r}"
            for name, value in state["settings"].items()
            if self._settings.get(name) != value
        ]
        if state["images"] != size:
            problems.append(f"it had {state['images']} training images, now there are {size}")
        if problems:
            raise UserError(
                f"The saved curriculum differs: {'; '.join(problems)}. "
                "Continue with the experiment that the run was started with."
            )
        self.difficulty = _unpack(state["difficulty"], "<f8").astype(np.float64)
        self._shown = _bits(state["shown"], 1, size)[0]
        self._admitted = list(_bits(state["admitted"], epochs, size))
        self._buffers = list(_bits(state["buffers"], epochs, size))

    def _open_epoch(self) -> None:
        """Ranks the images and decides which are admitted to the next epoch, and which can be replayed in it."""
        easiest_first = np.lexsort((self._ties, self.difficulty))
        hardest_shown = easiest_first[self._shown[easiest_first]][::-1]
        buffer = hardest_shown[: math.ceil(self.buffer_share * len(hardest_shown))]
        admitted = easiest_first[: self.admitted_count(len(self._admitted))]
        images = np.arange(len(self._labels))
        self._buffers.append(np.isin(images, buffer))
        self._admitted.append(np.isin(images, admitted))


def class_rarity(labels: np.ndarray) -> np.ndarray:
    """-log(share of the image's class) for each of (N,) labels, in nats, float64."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.log(len(labels) / counts)[inverse]


def curriculum_tables(
    draws: Iterable[CurriculumDraw], labels: np.ndarray, classes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts per epoch and class of the images admitted, and of the samples replayed.

    Args:
        draws: the draws of the epochs, from the first on.
        labels: (N,) class names of the training images.
        classes: the classes, which become the columns.

    Returns:
        Two tables of int with one row per epoch; their index `epoch` counts from 1.
    """
    admitted, replayed = [], []
    for draw in draws:
        admitted.append([np.count_nonzero(labels[draw.admitted] == name) for name in classes])
        replayed.append([np.count_nonzero(labels[draw.rows[draw.replayed]] == name) for name in classes])
    epochs = pd.RangeIndex(1, len(admitted) + 1, name="epoch")
    return tuple(  # type: ignore[return-value]
        pd.DataFrame(np.reshape(counts, (len(epochs), len(classes))).astype(int), epochs, list(classes))
        for counts in (admitted, replayed)
    )


def _check(settings: dict[str, Any]) -> None:
    problems = []
    for name, low_allowed, high_allowed in (
        ("start_share", False, True),
        ("replay_probability", True, False),
        ("buffer_share", False, True),
        ("momentum", True, False),
    ):
        value = settings[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 < value < 1 or (low_allowed and value == 0) or (high_allowed and value == 1)):
            interval = f"{'[' if low_allowed else '('}0, 1{']' if high_allowed else ')'}"
            problems.append(f"{name} is {value!r}, expected a number in {interval}")
    epochs, pacing, known = settings["full_after"], settings["pacing"], get_args(Pacing)
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        problems.append(f"full_after is {epochs!r}, expected a whole number of epochs, 1 or more")
    if pacing not in known:
        problems.append(f"pacing is {pacing!r}.{did_you_mean(str(pacing), known)} Valid: {', '.join(known)}")
    if problems:
        raise UserError("balancing 'curriculum': " + "; ".join(problems) + ".")


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(array.tobytes())).decode("ascii")


def _unpack(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


def _bits(text: str, rows: int, size: int) -> np.ndarray:
    return np.unpackbits(_unpack(text, "u1").reshape(rows, -1), axis=1, count=size).astype(bool)
