"""Which data sets lie in a folder, and which one a name means."""

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
        """How it is called beside others: the reader's name, with the folder's where that says more."""
        usual = {name.lower() for name in self.reader.info["folders"]}
        return self.reader.name if self.folder.name.lower() in usual else f"{self.reader.name} ({self.folder.name})"


def resolve(word: str, data_dir: str | None, reader: str | None = None) -> Place:
    """The data set that a word means: a reader's name, or a folder, absolute, in `data_dir`, or from here.

    Args:
        word: what the user wrote.
        data_dir: folder that holds data sets.
        reader: name of the reader, where `word` is a folder that several recognise.

    Raises:
        UserError: if it means nothing, or several things.
    """
    if reader is None and word in readers.names():
        entry = readers.get(word)
        return Place(entry, locate(entry, data_dir)[0])
    base = Path(data_dir).expanduser().absolute() if data_dir is not None else Path.cwd()
    folder = next(
        (place for place in (base / Path(word).expanduser(), Path(word).expanduser().absolute()) if place.is_dir()), None
    )
    if reader is not None:
        return Place(readers.get(reader), locate(readers.get(reader), data_dir, str(folder or word))[0])
    if folder is None:
        there = sorted(item.name for item in base.iterdir() if item.is_dir()) if base.is_dir() else []
        lines = [f"There is no data set '{word}'.{did_you_mean(word, [*readers.names(), *there])}"]
        lines.append(f"Known by name: {', '.join(readers.names())}.")
        if data_dir is None:
            lines.append("A folder is looked for from here; --data DIR names the folder that holds the data sets.")
        else:
            lines.append(f"Folders in {base}: {', '.join(there) or 'none'}." if base.is_dir() else f"{base} is not there.")
        raise UserError("\n".join(lines))
    found = [entry for entry in map(readers.get, readers.names()) if entry.info["recognises"](folder)]
    if not found:
        held = sorted(item.name + ("/" if item.is_dir() else "") for item in folder.iterdir())
        raise UserError(
            f"{folder} has the layout of no known data set ({', '.join(readers.names())}).\n"
            f"Found there: {', '.join(held[:12]) or 'nothing'}{f' and {len(held) - 12} more' if len(held) > 12 else ''}.\n"
            "Say which one it should be with --as NAME, to see the layout that was expected."
        )
    if len(found) > 1:
        raise UserError(
            f"{folder} has the layout of {' and of '.join(entry.name for entry in found)}: "
            f"say which one to check, for example --as {found[0].name}."
        )
    return Place(found[0], folder)


def siblings(place: Place, data_dir: str | None) -> list[Place]:
    """The other data sets in `data_dir`, by folder and reader."""
    base = Path(data_dir).expanduser().absolute() if data_dir is not None else None
    if base is None or not base.is_dir():
        return []
    found = [
        Place(entry, folder)
        for folder in sorted(item for item in base.iterdir() if item.is_dir())
        for entry in map(readers.get, readers.names())
        if entry.info["recognises"](folder)
    ]
    return [other for other in found if not same(other, place)]


def same(one: Place, other: Place) -> bool:
    """Whether both are one data set, be it that a folder lies in the other (PH2Dataset/ in ph2/)."""
    nested = one.folder == other.folder or one.folder in other.folder.parents or other.folder in one.folder.parents
    return nested and one.reader.name == other.reader.name
