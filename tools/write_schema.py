"""Writes experiments/schema.json and experiments/tables/schema.json from the typed experiment and the typed table. Run it after
every change of their fields or of a component's arguments."""

import json
from pathlib import Path

from keras_skin.experiment import json_schema
from keras_skin.experiment.tables import table_schema
from keras_skin.registry import atomic_path

folder = Path(__file__).resolve().parent.parent / "experiments"
for target, schema in ((folder / "schema.json", json_schema()), (folder / "tables" / "schema.json", table_schema())):
    with atomic_path(target) as path:
        path.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {target}")
