"""Tables of made-up cases with the official columns of the multi-class data sets: plausible ages, sites, gaps, repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from keras_skin.data.datasets.stand_ins.drawing import counts_or_default
from keras_skin.registry import UserError

ISIC2019_FLAGS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
TASK3_FLAGS = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
_AGES = {
    "NV": 45,
    "NEV": 42,
    "DF": 52,
    "VASC": 50,
    "MEL": 60,
    "BKL": 63,
    "SEK": 64,
    "BCC": 66,
    "AKIEC": 67,
    "AK": 67,
    "ACK": 66,
    "SCC": 70,
}
_HEAD_SHARE = {"BCC": 0.6, "AKIEC": 0.6, "AK": 0.6, "ACK": 0.6, "SCC": 0.5}
_HAM_SITES = (
    ("face", "neck", "scalp", "ear"),
    ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "chest", "hand", "foot"),
)
_ISIC_SITES = (("head/neck",), ("anterior torso", "lower extremity", "upper extremity", "posterior torso", "palms/soles"))
_PAD_SITES = (("FACE", "NOSE", "NECK", "EAR", "LIP"), ("FOREARM", "CHEST", "BACK", "ARM", "HAND", "THIGH", "ABDOMEN"))
_ORIGINS = ("POMERANIA", "GERMANY", "ITALY", "BRAZIL", "PORTUGAL", "UNK")
_IMAGES_PER_LESION = (1, 2, 1)


def rows_of(
    name: str, seed: int, counts: Mapping[str, int] | None, default: Mapping[str, int], table: pd.DataFrame | None
) -> pd.DataFrame:
    """The rows to draw: those of `table`, as text, or made-up ones.

    Args:
        name: name of the data set.
        seed: decides the made-up rows.
        counts: number of images of each class or split; others have their default.
        table: rows with the official columns.

    Raises:
        UserError: if both are given, or a column is missing.
    """
    make, columns = _MAKERS[name]
    if table is None:
        rows = make(np.random.default_rng([seed, len(name)]), counts_or_default(counts, default))
        return pd.DataFrame(rows, columns=list(columns), dtype=str)
    if counts is not None:
        raise UserError("Stand-ins are drawn by counts or from a table, not both.")
    missing = [column for column in columns if column not in table and column != "dataset"]
    if missing:
        raise UserError(f"The table to draw {name} from has no {', '.join(missing)}; expected {', '.join(columns)}.")
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)


def labels(rows: pd.DataFrame, flags: Sequence[str]) -> pd.Series:
    """The name of the column that is 1 in each row."""
    return rows[list(flags)].astype(float).idxmax(axis=1).astype(str)


def write(rows: pd.DataFrame, path: Path) -> None:
    """Writes a CSV as the publishers do: commas, UTF-8, no index."""
    rows.to_csv(path, index=False, lineterminator="\n")


def _cases(counts: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(diagnosis, number of the lesion, which image of the lesion) for each image; every third lesion has two images."""
    cases, lesion = [], 0
    for diagnosis, count in counts.items():
        done = 0
        while done < count:
            images = min(_IMAGES_PER_LESION[lesion % 3], count - done)
            cases += [(diagnosis, lesion, image) for image in range(images)]
            done, lesion = done + images, lesion + 1
    return cases


def _age(rng: np.random.Generator, diagnosis: str) -> int:
    return int(np.clip(5 * round(rng.normal(_AGES[diagnosis], 14) / 5), 5, 85))


def _site(rng: np.random.Generator, diagnosis: str, sites: tuple[tuple[str, ...], tuple[str, ...]]) -> str:
    return str(rng.choice(sites[0] if rng.random() < _HEAD_SHARE.get(diagnosis, 0.15) else sites[1]))


def _flags(diagnosis: str, names: Sequence[str]) -> dict[str, str]:
    return {name: "1.0" if name == diagnosis else "0.0" for name in names}


def _dx_type(rng: np.random.Generator, diagnosis: str) -> str:
    if diagnosis in ("MEL", "BCC", "AKIEC"):
        return "histo"
    return str(rng.choice(["follow_up", "histo", "consensus"] if diagnosis == "NV" else ["histo", "consensus"]))


def _ham10000(rng: np.random.Generator, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows, of_lesion = [], {}
    for number, (diagnosis, lesion, image) in enumerate(_cases(counts)):
        if not image:
            of_lesion = {
                "lesion_id": f"HAM_{lesion:07d}",
                "dx": diagnosis.lower(),
                "dx_type": _dx_type(rng, diagnosis),
                "age": "" if lesion % 23 == 2 else f"{_age(rng, diagnosis)}.0",
                "sex": "unknown" if lesion % 29 == 3 else str(rng.choice(["male", "female"])),
                "localization": "unknown" if lesion % 19 == 4 else _site(rng, diagnosis, _HAM_SITES),
                "dataset": str(rng.choice(["vidir_modern", "vidir_molemax", "rosendahl"])),
            }
        rows.append({**of_lesion, "image_id": f"ISIC_{24306 + number:07d}"})
    return rows


def _isic2019(rng: np.random.Generator, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows, of_lesion = [], {}
    for number, (diagnosis, lesion, image) in enumerate(_cases(counts)):
        unnamed = lesion % 6 == 0  # these lesions have one image each
        if not image:
            of_lesion = {
                "age_approx": "" if lesion % 17 == 2 else str(_age(rng, diagnosis)),
                "sex": "" if lesion % 19 == 3 else str(rng.choice(["male", "female"])),
                "anatom_site_general": "" if lesion % 11 == 4 else _site(rng, diagnosis, _ISIC_SITES),
                "lesion_id": "" if unnamed else f"BCN_{lesion:07d}",
            }
        rows.append(
            {
                "image": f"ISIC_{53454 + number:07d}" + ("_downsampled" if unnamed and lesion % 12 == 0 else ""),
                **of_lesion,
                **_flags(diagnosis, ISIC2019_FLAGS),
            }
        )
    return rows


def _isic2018_task3(rng: np.random.Generator, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows = []
    for split, first in (("train", 24306), ("validation", 34321), ("test", 34524)):
        shares = {name: len(range(index, counts[split], len(TASK3_FLAGS))) for index, name in enumerate(TASK3_FLAGS)}
        cases = _cases(shares) if split == "train" else [(name, 0, 0) for name, count in shares.items() for _ in range(count)]
        how = ""
        for number, (diagnosis, lesion, image) in enumerate(cases):
            if not image:
                how = {
                    "histo": "histopathology",
                    "follow_up": "serial imaging showing no change",
                    "consensus": "single image expert consensus",
                }[_dx_type(rng, diagnosis)]
            grouped = (
                {"lesion_id": f"HAM_{lesion:07d}", "diagnosis_confirm_type": how}
                if split == "train"
                else {"lesion_id": "", "diagnosis_confirm_type": ""}
            )
            rows.append({"image": f"ISIC_{first + number:07d}", **_flags(diagnosis, TASK3_FLAGS), **grouped, "split": split})
    return rows


def _isic2018_task1(rng: np.random.Generator, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    firsts = {"train": 0, "validation": 12255, "test": 15169}
    return [
        {"image": f"ISIC_{firsts[split] + number:07d}", "split": split}
        for split, count in counts.items()
        for number in range(count)
    ]


def _pad_ufes_20(rng: np.random.Generator, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    of_lesion: dict[str, Any] = {}
    for number, (diagnosis, lesion, image) in enumerate(_cases(counts)):
        if not image:
            patient = lesion - lesion % 5 // 4  # every fifth patient has two lesions
            biopsed = diagnosis in ("BCC", "SCC", "MEL") or rng.random() < 0.2
            of_lesion = {
                "patient_id": f"PAT_{patient}",
                "lesion_id": str(lesion),
                "age": str(_age(rng, diagnosis) + int(rng.integers(5))),
                "region": _site(rng, diagnosis, _PAD_SITES),
                "diagnostic": diagnosis,
                "biopsed": str(biopsed),
                **_answers(rng, unasked=not biopsed and rng.random() < 0.8),
            }
        rows.append({**of_lesion, "img_id": f"PAT_{of_lesion['patient_id'][4:]}_{lesion}_{100 + number}.png"})
    return rows


def _answers(rng: np.random.Generator, unasked: bool) -> dict[str, str]:
    questions = ("smoke", "drink", "pesticide", "skin_cancer_history", "cancer_history", "has_piped_water", "has_sewage_system")
    answers = {name: "" if unasked else str(bool(rng.random() < 0.4)) for name in questions}
    for parent in ("background_father", "background_mother"):
        answers[parent] = "" if unasked or rng.random() < 0.05 else str(rng.choice(_ORIGINS))
    answers["gender"] = "" if unasked else str(rng.choice(["FEMALE", "MALE"]))
    answers["fitspatrick"] = "" if unasked else f"{rng.integers(1, 5)}.0"
    for diameter in ("diameter_1", "diameter_2"):
        answers[diameter] = "" if unasked else f"{rng.integers(3, 25)}.0"
    for symptom, unknown in (("itch", 0.0), ("grew", 0.18), ("hurt", 0.0), ("changed", 0.17), ("bleed", 0.0), ("elevation", 0.0)):
        answers[symptom] = "UNK" if rng.random() < unknown else str(bool(rng.random() < 0.45))
    return answers


_Maker = Callable[[np.random.Generator, Mapping[str, int]], list[dict[str, Any]]]
_MAKERS: dict[str, tuple[_Maker, tuple[str, ...]]] = {
    "ham10000": (_ham10000, ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")),
    "isic2018_task1": (_isic2018_task1, ("image", "split")),
    "isic2018_task3": (_isic2018_task3, ("image", *TASK3_FLAGS, "lesion_id", "diagnosis_confirm_type", "split")),
    "isic2019": (_isic2019, ("image", *ISIC2019_FLAGS, "age_approx", "anatom_site_general", "lesion_id", "sex")),
    "pad_ufes_20": (
        _pad_ufes_20,
        (
            "patient_id",
            "lesion_id",
            "smoke",
            "drink",
            "background_father",
            "background_mother",
            "age",
            "pesticide",
            "gender",
            "skin_cancer_history",
            "cancer_history",
            "has_piped_water",
            "has_sewage_system",
            "fitspatrick",
            "region",
            "diameter_1",
            "diameter_2",
            "diagnostic",
            "itch",
            "grew",
            "hurt",
            "changed",
            "bleed",
            "elevation",
            "img_id",
            "biopsed",
        ),
    ),
}
