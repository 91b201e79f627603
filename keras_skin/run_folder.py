"""The files of a run, by name and type: every layer may read them, the workflow writes them.

A run folder is made once and never overwritten. Each of its files is complete or absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from keras_skin.experiment import Experiment, load_experiment
from keras_skin.experiment.changes import changed_settings, headline
from keras_skin.experiment.paper import PRINTED
from keras_skin.registry import UserError, atomic_path, clipped, escape_table, unescape_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("keras_skin")

BEST_WEIGHTS = "best.weights.h5"
RUN_STATE = "run_state.npz"
METADATA = "metadata.json"
SEGMENTER = "segmenter"
LATENCY = "latency.json"
PRESET = "preset.json"
"""The file that makes a small run a preset, see `keras_skin.presets`."""
EXPORTS = {"float32": "saved_model", "bfloat16": "saved_model_bfloat16", "litert": "litert", "images": "saved_model_images"}
"""The folder of each edition of an export; below it lie versions."""
EMBEDDINGS = "embeddings.npz"
"""The features that the classifier takes, of images of the tested split: `image_ids`, `features` (N, D) and `split`."""
MISSING_IMAGE = "missing image"
"""The kind of excluded.csv that stands for an image which is not on the disk, see `ExclusionKind`."""
SYNTHETIC_BANNER = "SYNTHETIC DATA: the images were drawn by a program. These numbers say nothing about patients."
DRY_RUN_BANNER = "DRY RUN: two batches of everything. These numbers say nothing about the model."
RESTORE = "Restore it from a backup, or start a new run."
"""What to do about a damaged file of a run."""
EXPLANATIONS = "explanations"
"""The entry of metrics.json beside the splits."""
TEXT_COLUMNS = ("image_id", "dataset", "split", "label", "predicted", "group_id", "fold")
"""Columns of predictions.csv that are not numbers."""


@dataclass(frozen=True)
class RunOptions:
    """Options of the command line beside the experiment; run.json records them, so that a resumed run has the same ones."""

    data_dir: str | None = None
    demo: bool = False
    dry_run: bool = False


class _Record(TypedDict, total=False):
    """The entries of run.json whose types are checked when it is read."""

    data_dir: str | None
    demo: bool
    dry_run: bool
    finished: bool
    warning: str | None
    classes: list[str]
    model_arguments: dict[str, Any]
    label_prior: dict[str, Any]
    precision: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, or of one fold of a cross-validation.

    Files that change while the run executes are read anew each time.

    Raises:
        UserError: from the properties that read a JSON or CSV file, if it is missing or damaged.
    """

    path: Path

    @staticmethod
    def create(out: Path, name: str, moment: datetime | None = None) -> RunFolder:
        """Makes a new folder `out/name-YYYYMMDD-HHMMSS`, with a number appended where that exists already."""
        stem = f"{name}-{(moment or datetime.now()):%Y%m%d-%H%M%S}"
        for attempt in range(1, 1000):
            path = out / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except (NotADirectoryError, PermissionError) as error:
                raise UserError(f"--out {out}: cannot make a folder there: {error.strerror}.") from None
            return RunFolder(path)
        raise UserError(f"--out {out}: there are a thousand runs of this second already.")

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """The folder of an existing run, finished or not."""
        path = Path(path).expanduser()
        missing = [name for name in ("experiment.json", "run.json") if not (path / name).is_file()]
        if missing:
            content = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else None
            state = f"It holds: {', '.join(content) or 'nothing'}." if content is not None else "It does not exist."
            raise UserError(f"'{path}' is not a run folder: it has no {' and '.join(missing)}. {state}")
        return RunFolder(path)

    @staticmethod
    def open_finished(path: str | Path) -> RunFolder:
        """The folder of a finished run."""
        folder = RunFolder.open(path)
        if (folder / PRESET).is_file():
            raise UserError(f"'{path}' is a preset, which has no predictions of single images. Expected the folder of a run.")
        needed = ("metrics.json", "predictions.csv", "splits.csv")
        if not folder.finished or not all((folder / name).is_file() for name in needed):
            raise UserError(f"The run in '{path}' has not finished. Resume it: python -m keras_skin.run --resume {path}")
        return folder

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    # What the run is.

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return load_experiment(self / "experiment.json")

    @property
    def settings(self) -> dict[str, Any]:
        """experiment.json as plain values, which also reads a file that today's `Experiment` refuses."""
        return self.read_json("experiment.json")

    @property
    def record(self) -> dict[str, Any]:
        """run.json: the options, whether the run is finished, and facts of its data."""
        return self.read_checked("run.json", _Record)

    @property
    def options(self) -> RunOptions:
        """Options of the command line."""
        record = self.record
        return RunOptions(record.get("data_dir"), bool(record.get("demo")), bool(record.get("dry_run")))

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return bool(self.record.get("finished"))

    @property
    def synthetic(self) -> bool:
        """Whether the images were drawn for a demo."""
        return self.options.demo or (self / "SYNTHETIC.txt").is_file()

    @property
    def headline(self) -> str:
        """The experiment's title, with a dry run, missing training data and changed settings in brackets."""
        absent = {item["name"]: item.get("without") for item in self._absent_data}
        without = [f"without {name}" + (f": {rest}" if rest else "") for name, rest in absent.items()]
        return headline(self.settings, "dry run" if self.options.dry_run else "", *without)

    @property
    def changes(self) -> dict[str, str]:
        """`{dotted key: "1 (file: 50)"}` of the settings that differ from the experiment's file."""
        return changed_settings(self.settings)

    @property
    def banner(self) -> str:
        """Why no number of the run means anything; "" if they do."""
        if self.synthetic:
            return SYNTHETIC_BANNER
        return DRY_RUN_BANNER if self.options.dry_run else ""

    @property
    def paper(self) -> dict[str, Any]:
        """The experiment's `paper` block, {} if it has none; for a run whose numbers cannot stand beside the printed ones it has
        the source alone, and the reason in `dropped`."""
        paper: dict[str, Any] = self.settings.get("paper") or {}
        absent = ", ".join(item["name"] for item in self._absent_data)
        reasons = (
            "its images were drawn by a program" if self.synthetic else "",
            "it is a dry run" if self.options.dry_run else "",
            f"it was trained without {absent}" if absent else "",
        )
        reason = next(filter(None, reasons), "")
        if not reason or not any(paper.get(name) for name in PRINTED):
            return paper
        return {**{key: paper.get(key) for key in ("citation", "doi")}, "dropped": reason}

    @property
    def _absent_data(self) -> list[dict[str, Any]]:
        """The training data sets of the experiment that none of the training images is from."""
        first = (self.folds or [self])[0]
        if not (first / "splits.csv").is_file():
            return []
        data, splits = self.settings["data"], first.splits
        trained = set(splits.loc[splits["split"] == "train", "dataset"])
        return [item for item in data.get("extra_train", []) if item["name"] not in trained]

    @property
    def warning(self) -> str:
        """Why the numbers of validation and test are too good; "" if they are not."""
        return str(self.record.get("warning") or "")

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of the model's outputs."""
        folder = self.folds[0] if self.folds else self
        return tuple(folder._recorded("classes"))

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Arguments that the model's builder took from the training data."""
        arguments: dict[str, Any] = self._recorded("model_arguments")
        return arguments

    @property
    def label_shift(self) -> list[float] | None:
        """What `predict.prior` adds to the logit of each class; None if the experiment has no prior."""
        prior = self.record.get("label_prior")
        return [prior["shift"][name] for name in self.classes] if prior else None

    @property
    def data_dir(self) -> Path | None:
        """The folder of the data sets. A demo's lies in the run's folder, or beside the folder of a fold."""
        options = self.options
        if options.demo:
            return next((path for path in (self / "demo_data", self.path.parent / "demo_data") if path.is_dir()), None)
        return Path(options.data_dir) if options.data_dir else None

    # What the run made.

    @property
    def state(self) -> Path:
        """The file that a training resumes from."""
        return self._checkpoints / RUN_STATE

    @property
    def best_weights(self) -> Path:
        """The weights of the best epoch."""
        return self._checkpoints / BEST_WEIGHTS

    @property
    def _checkpoints(self) -> Path:
        path = self / "checkpoints"
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, expected the folder of a training's state and weights. {RESTORE}")
        return path

    @property
    def weights_sha256(self) -> str:
        """Hash of the best weights."""
        with self.best_weights.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @property
    def splits(self) -> pd.DataFrame:
        """`image_id, group_id, label, split, dataset` of every image, as texts."""
        return self.read_table("splits.csv")

    @property
    def excluded(self) -> pd.DataFrame:
        """Images that are not used, and why."""
        return self.read_table("excluded.csv")

    @property
    def missing_images(self) -> dict[str, int]:
        """How many images each data set lists that were not on the disk; empty for a run of a version that did not record it."""
        excluded = (self.folds or [self])[0].excluded
        if "kind" not in excluded:
            return {}
        excluded = excluded[excluded["kind"] == MISSING_IMAGE]
        return {str(name): int(count) for name, count in excluded.groupby("dataset")["image_id"].nunique().items()}

    def missing_of(self, split: str) -> int:
        """How many images of a measured split were not on the disk. Where the splits are drawn, missing images belong to none."""
        first = (self.folds or [self])[0]
        if not (first / "excluded.csv").is_file():  # a preset
            return 0
        excluded = first.excluded
        if not {"kind", "split"} <= set(excluded):
            return 0
        of_split = excluded["split"] == split
        if split.startswith("external/"):
            of_split = excluded["dataset"] == split.removeprefix("external/")
        return int(excluded[of_split & (excluded["kind"] == MISSING_IMAGE)]["image_id"].nunique())

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: `epoch`, `learning_rate`, `seconds` and every logged value."""
        return self.read_table("history.csv").replace("", "nan").astype(float)

    @property
    def training_minutes(self) -> float | None:
        """Time of all epochs, with validation; None if it is not known."""
        return float(self.history["seconds"].sum()) / 60 if (self / "history.csv").is_file() else None

    @property
    def metrics(self) -> dict[str, Any]:
        """`{split: {task: {metric: {"value", "ci95", "n"}}}}`, and what was measured of the `explanations`."""
        metrics = self.read_checked("metrics.json", dict[str, dict[str, Any]])
        for split, tasks in metrics.items():
            if split != EXPLANATIONS:
                _check(self / "metrics.json", tasks, _Tasks, split)
        return metrics

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per measured image; numbers come back with the bits that were written, blanks as NaN."""
        table = self.read_table("predictions.csv")
        missing = [column for column in ("image_id", "dataset", "split", "label") if column not in table]
        if missing or table.empty:
            problem = f"column {', '.join(missing)}" if missing else "rows"
            raise UserError(f"{self / 'predictions.csv'} has no {problem}; is this the file of a run?")
        numbers = [str(column) for column in table if column not in TEXT_COLUMNS]
        try:
            # Python's own reading of floats is exact; that of pandas is not.
            return table.assign(**{column: table[column].replace("", "nan").astype(float) for column in numbers})
        except ValueError as error:
            raise UserError(f"{self / 'predictions.csv'} holds a text where a number belongs: {error}.") from error

    @property
    def segmenter_record(self) -> dict[str, str]:
        """The segmenter that cuts the lesions out: the name of its `run`, and `weights_sha256`."""
        return self.read_json(f"{SEGMENTER}/record.json")

    @property
    def folds(self) -> list[RunFolder]:
        """The folds of a cross-validation, in order; empty for other runs."""
        paths = self.path.glob("fold_*")
        return [RunFolder(path) for path in sorted(paths, key=lambda path: int(path.name.removeprefix("fold_")))]

    def masks(self, split: str) -> Path:
        """The folder of the predicted masks of a split."""
        return self / "masks" / split

    # Reading and writing.

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON object."""
        path = self / name
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as JSON: {error}. {RESTORE}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}: expected a JSON object, found a {type(values).__name__}. {RESTORE}")
        return values

    def read_checked(self, name: str, kind: Any) -> dict[str, Any]:
        """Reads a JSON object whose entries have the types of `kind`."""
        values = self.read_json(name)
        _check(self / name, values, kind)
        return values

    def _recorded(self, key: str) -> Any:
        """An entry of run.json that is written before the training."""
        record = self.record
        if key not in record:
            raise UserError(f"{self / 'run.json'} has no '{key}', which a run records before its training. {RESTORE}")
        return record[key]

    def read_table(self, name: str) -> pd.DataFrame:
        """Reads a CSV file that `write_table` wrote, every cell as text."""
        import pandas as pd

        try:
            table: pd.DataFrame = unescape_table(pd.read_csv(self / name, dtype=str, keep_default_na=False))
            return table
        except (OSError, ValueError) as error:
            raise UserError(f"{self / name} cannot be read: {error}. {RESTORE}") from error

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file under its final name only when it is complete."""
        with atomic_path(self / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes JSON; NaN is refused because it is not JSON."""
        self.write_text(name, json.dumps(values, indent=2, allow_nan=False) + "\n")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a CSV file whose cells no spreadsheet runs as formulas, see `escape_cell`."""
        self.write_text(name, escape_table(table).to_csv(index=False))

    def update_record(self, **values: Any) -> None:
        """Changes values of run.json."""
        self.write_json("run.json", {**self.record, **values})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; the system releases it when the process ends, however it ends.

        Raises:
            UserError: if another process works in the folder.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"Another process works in '{self.path}'. Wait until it ends, or stop it.") from None
        except (OSError, NotImplementedError) as error:
            log.warning("The folder cannot be locked (%s): do not resume the run twice at the same time.", error)
        try:
            yield
        finally:
            lock.release()


_Tasks = dict[str, dict[str, dict[str, Any]]]
"""What metrics.json holds of a split: `{task: {metric: {"value", "ci95", "n"}}}`."""


def _check(path: Path, values: Any, kind: Any, *parents: str) -> None:
    """Refuses values of a JSON file that do not have the types of `kind`; `parents` are the keys that lead to them."""
    try:
        TypeAdapter(kind).validate_python(values, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join([*parents, *map(str, problem["loc"])])
        raise UserError(f"{path} is damaged: {where} is {clipped(repr(problem['input']))}. {RESTORE}") from None
