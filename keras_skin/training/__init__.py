"""Compiling and fitting models, and continuing a fit that was cut short. Knows neither data sets nor concrete models.

| module | what it does |
|---|---|
| `precision` | numeric precision and determinism |
| `schedules`, `optimizers` | learning-rate schedules and optimizers from plain dictionaries |
| `compile` | a loss, its weight and metrics for every output |
| `plateau` | the learning rate's fall where the monitored value stays |
| `fit` | the training itself |
| `run_state` | everything needed to continue bit for bit, in one file |
"""
