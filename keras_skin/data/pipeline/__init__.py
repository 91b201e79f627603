"""Batches for training and evaluation, as pure functions of (seed, epoch, index)."""
