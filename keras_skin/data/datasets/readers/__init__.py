"""The data sets the package reads, by name; one file each.

Every file has three functions:

- `recognises(folder)`: whether a folder has the data set's layout.
- `render(folder, seed=0, counts=None, size=(300, 400), table=None)`: draws a small stand-in in the official layout into a new
  folder. `seed` decides all pictures and tables; `counts` is the number of images of each class or split (default: `COUNTS` of
  the file); `size` is (height, width), for some data sets approximately. Data sets with clinical tables can draw one picture for
  each row of a `table` with the official columns instead.
- `read(folder)`: reads the tables of a folder and returns its `Records`; no image is opened. It raises `MissingData` if the
  folder does not have the layout, and `UserError` if a table is missing or invalid.
"""

from enum import StrEnum

from keras_skin.registry import Registry

registry = Registry("data set", "keras_skin.data.datasets.readers")


class Licence(StrEnum):
    """What the terms of a data set allow; `terms` of its registration is the sentence for people."""

    FREE = "free"
    ATTRIBUTION = "attribution"
    NON_COMMERCIAL = "non-commercial"
    OWN = "own"


Counts = dict[str, int] | None
register, get, names = registry.register, registry.get, registry.names
