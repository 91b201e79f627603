"""Published encodings of clinical metadata: fields, order and values are fixed, whatever the training split holds."""

from __future__ import annotations

from collections.abc import Mapping

from keras_skin.registry import UserError, did_you_mean

_ANSWERS = ("False", "True")
_ANSWERS_OR_UNKNOWN = (*_ANSWERS, "UNK")

# The encoding of Pacheco and Krohling, "An attention-based mechanism to combine images and metadata in deep learning models
# applied to skin cancer classification", 2021: 3 numbers and 78 values. Both spellings of Brazil are in the published table.
_PAD_UFES_20_81: dict[str, tuple[str, ...]] = {
    "age": (),
    "diameter_1": (),
    "diameter_2": (),
    "smoke": _ANSWERS,
    "drink": _ANSWERS,
    "background_father": (
        "AUSTRIA",
        "BRASIL",
        "BRAZIL",
        "CZECH",
        "GERMANY",
        "ISRAEL",
        "ITALY",
        "NETHERLANDS",
        "POLAND",
        "POMERANIA",
        "PORTUGAL",
        "SPAIN",
        "UNK",
    ),
    "background_mother": (
        "BRAZIL",
        "FRANCE",
        "GERMANY",
        "ITALY",
        "NETHERLANDS",
        "NORWAY",
        "POLAND",
        "POMERANIA",
        "PORTUGAL",
        "SPAIN",
        "UNK",
    ),
    "pesticide": _ANSWERS,
    "gender": ("FEMALE", "MALE"),
    "skin_cancer_history": _ANSWERS,
    "cancer_history": _ANSWERS,
    "has_piped_water": _ANSWERS,
    "has_sewage_system": _ANSWERS,
    "fitspatrick": ("1.0", "2.0", "3.0", "4.0", "5.0", "6.0"),
    "region": (
        "ABDOMEN",
        "ARM",
        "BACK",
        "CHEST",
        "EAR",
        "FACE",
        "FOOT",
        "FOREARM",
        "HAND",
        "LIP",
        "NECK",
        "NOSE",
        "SCALP",
        "THIGH",
    ),
    **dict.fromkeys(("itch", "grew", "hurt", "changed", "bleed", "elevation"), _ANSWERS_OR_UNKNOWN),
}
_PRESETS = {"pad_ufes_20_81": _PAD_UFES_20_81}


def preset_values(name: str, fields: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The values of each field of a preset, in the order of the columns; none for a number.

    Args:
        name: the preset's name.
        fields: the fields that the data set has, and their kinds.

    Raises:
        UserError: if there is no such preset, or the data set's fields are not those that it was made for.
    """
    if name not in _PRESETS:
        raise UserError(f"There is no metadata preset {name!r}.{did_you_mean(name, _PRESETS)} Known: {', '.join(_PRESETS)}.")
    values = _PRESETS[name]
    kinds = {field: "categorical" if known else "numeric" for field, known in values.items()}
    missing = [f"{field} ({kind})" for field, kind in kinds.items() if fields.get(field) != kind]
    if missing:
        raise UserError(
            f"The metadata preset {name!r} needs fields that this data set does not have: {', '.join(missing)}. "
            "Leave the preset out to encode the fields of this data set."
        )
    return values
