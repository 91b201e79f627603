"""Exceptions that end a training before its last epoch."""

from __future__ import annotations

import signal
from pathlib import Path


class NonFiniteLoss(RuntimeError):
    """The training loss became infinite or not a number; the message names the epoch, the step and, if known, the images."""


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM ended the training; its run state is on disk and `fit(..., resume=True)` resumes from it.

    Attributes:
        signal_number: the signal.
        exit_code: exit code for a command: 128 + signal number (130 for Ctrl-C).
        folder: folder of the run state.
        epoch, step: the training resumes in this epoch (from 1), after this many of its steps.
    """

    def __init__(self, signal_number: int, folder: Path, epoch: int, step: int, epochs: int, steps: int) -> None:
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        self.folder = folder
        self.epoch = epoch
        self.step = step
        name = "Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name
        position = "all its epochs are done" if epoch > epochs else f"it resumes in epoch {epoch}, after {step} of {steps} steps"
        super().__init__(f"Interrupted by {name}. The state of the training is saved: {position}.")
