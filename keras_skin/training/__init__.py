"""Compiles and fits models, and resumes interrupted fits. Independent of data sets and concrete models.

| module | what it does |
|---|---|
| `precision` | numeric precision and determinism |
| `schedules`, `optimizers` | learning-rate schedules and optimizers from plain dictionaries |
| `compile` | a loss, its weight and metrics for every output |
| `plateau` | a lower learning rate where the monitored value no longer improves |
| `averaging` | an average of the weights over the steps, for validation and the best weights |
| `validation_shift` | a shift of the class logits outside training |
| `unfreeze` | a pretrained backbone that is frozen at first, then unfrozen in stages |
| `fit` | the training loop |
| `run_state` | the file from which a training resumes bit for bit |
"""
