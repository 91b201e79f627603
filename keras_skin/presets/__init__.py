"""Trained models by name, as a folder, a `.zip` or an `https://` address. The presets of the package are folders of this package.

- `files.py`: the files of a preset, their checksums, and weights in half precision.
- `sources.py`: finds, downloads and unpacks a preset.

A preset is a small finished run, so that `RunFolder` and `load_run` open it like any other run.
"""
