"""Explanations of single predictions: heat maps, the pictures drawn from them, and the callback that writes both after a fit."""
