"""Finds data sets in a folder, and the data set that a name refers to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keras_skin.data.datasets import readers
from keras_skin.data.datasets.records import locate
from keras_skin.registry import Entry, UserError, did_you_mean


@dataclass(frozen=True)
class Place:
    """A data set on disk: its reader and its folder."""

    reader: Entry
    folder: Path

    @property
    def name(self) -> str:
        """The reader's name, with the folder's name if that is not a usual one."""
        usual_names = {name.lower() for name in self.reader.info["folders"]}
        return self.reader.name if self.folder.name.lower() in usual_names else f"{self.reader.name} ({self.folder.name})"


def resolve(word: str, data_dir: str | None, reader: str | None = None) -> Place:
    """Finds the data set for a word: a reader's name, or a folder (absolute, in `data_dir`, or relative).

    Args:
        word: the user's word.
        data_dir: the folder of the data sets.
        reader: name of the reader, for a folder that several readers recognise.

    Raises:
        UserError: if no data set or several data sets fit.
    """
    if reader is None and word in readers.names():
        entry = readers.get(word)
        return Place(entry, locate(entry, data_dir)[0])
    base = Path(data_dir).expanduser().absolute() if data_dir is not None else Path.cwd()
    candidates = (base / Path(word).expanduser(), Path(word).expanduser().absolute())
    folder = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if reader is not None:
        return Place(readers.get(reader), locate(readers.get(reader), data_dir, str(folder or word))[0])
    if folder is None:
        folders = sorted(item.name for item in base.iterdir() if item.is_dir()) if base.is_dir() else []
        lines = [f"There is no data set '{word}'.{did_you_mean(word, [*readers.names(), *folders])}"]
        lines.append(f"Known by name: {', '.join(readers.names())}.")
        if data_dir is None:
            lines.append("A folder name is relative to the current folder; --data DIR names the folder of the data sets.")
        else:
            lines.append(f"Folders in {base}: {', '.join(folders) or 'none'}." if base.is_dir() else f"{base} does not exist.")
        raise UserError("\n".join(lines))
    matches = [entry for entry in map(readers.get, readers.names()) if entry.info["recognises"](folder)]
    if not matches:
        names = sorted(item.name + ("/" if item.is_dir() else "") for item in folder.iterdir())
        raise UserError(
            f"{folder} has the layout of no known data set ({', '.join(readers.names())}).\n"
            f"It has: {', '.join(names[:12]) or 'nothing'}{f' and {len(names) - 12} more' if len(names) > 12 else ''}.\n"
            "Name the data set with --as NAME to see the expected layout."
        )
    if len(matches) > 1:
        raise UserError(
            f"{folder} has the layout of {' and of '.join(entry.name for entry in matches)}: "
            f"name the one to check, for example --as {matches[0].name}."
        )
    return Place(matches[0], folder)


def siblings(place: Place, data_dir: str | None) -> list[Place]:
    """The other data sets in `data_dir`, by folder and reader."""
    base = Path(data_dir).expanduser().absolute() if data_dir is not None else None
    if base is None or not base.is_dir():
        return []
    places = [
        Place(entry, folder)
        for folder in sorted(item for item in base.iterdir() if item.is_dir())
        for entry in map(readers.get, readers.names())
        if entry.info["recognises"](folder)
    ]
    return [other for other in places if not same(other, place)]


def same(one: Place, other: Place) -> bool:
    """Whether both are the same data set; one folder may be inside the other (PH2Dataset/ in ph2/)."""
    nested = one.folder == other.folder or one.folder in other.folder.parents or other.folder in one.folder.parents
    return nested and one.reader.name == other.reader.name
