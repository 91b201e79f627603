"""Writes experiments/schema.json from the typed experiment. Run it after every change of an experiment's fields or of a
component's arguments."""

import json
from pathlib import Path

from keras_skin.experiment import json_schema
from keras_skin.registry import atomic_path

target = Path(__file__).resolve().parent.parent / "experiments" / "schema.json"
with atomic_path(target) as path:
    path.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
print(f"wrote {target}")
