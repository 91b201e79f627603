"""Gives the package damaged experiments, tables, images and requests, and expects its own sentences:

    python tools/fuzz.py --out fuzz --experiments 100000 --tables 20000 --images 20000
    python tools/fuzz.py --out fuzz --requests 5000 --run runs/tdbn_ham10000-20260131-101500

A case is a valid file or request with a few changes, drawn from `--seed` and the case's number. It passes if it is accepted or
refused by a `UserError` (a request: by a status below 500 with a sentence) within ten seconds. Every other outcome is a failure:
the input and the traceback are kept in the output folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import base64
import copy
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

LONGEST = 10.0
"""Seconds after which a case counts as hung."""
TEXTS = (
    "",
    " ",
    "nan",
    "1e999",
    "-0",
    "None",
    "\u200b",
    "\ud800",
    "\x00",
    "'; --",
    "../" * 9,
    "=1+1",
    "ä" * 300,
    "0" * 5000,
    "[" * 5000,
)
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, float("nan"), 10**30, [], {}, [[]], {"name": []}, [1, "a"], *TEXTS)


class Hung(Exception):
    """A case took longer than `LONGEST`."""


class Failed(Exception):
    """A case had an outcome that is no sentence of the package."""


class Cases(NamedTuple):
    """How a target is fuzzed.

    Attributes:
        run: draws and runs one case.
        input: the file that a case writes its input to.
    """

    run: Callable[[random.Random], None]
    input: Path


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `Hung` in the block after some seconds."""

    def raise_hung(number: int, frame: object) -> None:
        raise Hung(f"no answer after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, raise_hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """The content with one to four changes: bytes flipped, cut out, repeated, inserted, or the end cut off."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(data) + 1)
        end = min(len(data), start + draw.choice((1, 2, 8, 64, 1024)))
        kind = draw.randrange(5)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end] * draw.choice((1, 3, 30))
        elif kind == 3:
            data[start:start] = draw.choice(
                (b"\xff\xfe", b"\x00" * 9, draw.randbytes(16), b"\xff\xda\x00\x02", b'"', b"\r", b"\xef\xbb\xbf")
            )
        else:
            del data[start:]
    return bytes(data)


def changed_json(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON value with one to three changes: a value replaced, a key removed, renamed or added, or a deep nesting."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        parent = value
        while True:
            children = [
                item
                for item in (parent.values() if isinstance(parent, dict) else parent)
                if isinstance(item, dict | list) and item
            ]
            if not children or draw.random() < 0.4:
                break
            parent = draw.choice(children)
        if not parent:
            continue
        key = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        kind = draw.randrange(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[draw.choice((*TEXTS, str(key).upper(), f"{key}s", f"{key}.name"))] = parent.pop(key)
        elif kind == 2:
            for _ in range(draw.choice((1, 5, 40, 300))):
                parent[key] = [parent[key]]
        else:
            parent[key] = copy.deepcopy(draw.choice(VALUES))  # later changes may go into it
    return value


def changed_table(content: bytes, draw: random.Random) -> bytes:
    """A table with one to three changes of cells, rows or columns, or of bytes."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw.randint(1, 3)):
        row = draw.choice(rows) if rows else []
        kind = draw.randrange(6)
        if kind == 0 and row:
            row[draw.randrange(len(row))] = draw.choice(TEXTS)
        elif kind == 1 and row:
            del row[draw.randrange(len(row))]
        elif kind == 2:
            row.append("")
        elif kind == 3 and rows:
            rows.insert(draw.randrange(len(rows)), list(row))
        elif kind == 4 and rows and rows[0]:
            rows[0][draw.randrange(len(rows[0]))] = draw.choice((*TEXTS, *rows[0]))
        elif row:
            cell = draw.randrange(len(row))
            row[cell] = draw.choice((row[cell].upper(), f" {row[cell]} ", f"{row[cell]}\u200b", f"-{row[cell]}", f'"{row[cell]}'))
    return draw.choice(("\n", "\r\n")).join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def experiment_cases(folder: Path) -> Cases:
    """Loads changed copies of the shipped experiments from a file, or with a changed override."""
    from keras_skin.experiment import load_experiment, shipped_experiments
    from keras_skin.experiment.loading import shipped_folder

    shipped = {
        name: json.loads((shipped_folder() / f"{name}.json").read_text(encoding="utf-8")) for name in shipped_experiments()
    }
    for name, settings in shipped.items():  # `extends` of the changed copies finds the originals
        (folder / f"{name}.json").write_text(json.dumps(settings), encoding="utf-8")
    file = folder / "changed.json"

    def case(draw: random.Random) -> bytes:
        settings = changed_json(shipped[draw.choice(list(shipped))], draw)
        content = json.dumps(settings).encode()
        overrides = [f"{draw.choice(('train.epochs', 'model.name', 'x', 'data.train.name', '.', ''))}={draw.choice(TEXTS)}"]
        file.write_bytes(changed_bytes(content, draw) if draw.random() < 0.2 else content)
        load_experiment(file, overrides if draw.random() < 0.2 else [], demo=draw.random() < 0.3)

    return Cases(case, file)


def table_cases(folder: Path) -> Cases:
    """Reads stand-ins of the data sets with one table changed."""
    from keras_skin.data.datasets import readers

    tables: list[tuple[str, Path, bytes]] = []
    for name in readers.names():
        if "render" not in readers.get(name).info:
            continue
        readers.get(name).info["render"](folder / name, seed=1, size=(24, 32))
        tables += [(name, file, file.read_bytes()) for file in sorted((folder / name).rglob("*.csv"))]
    copy_of_input = folder / "changed.csv"

    def case(draw: random.Random) -> bytes:
        name, file, content = draw.choice(tables)
        changed = changed_table(content, draw)
        copy_of_input.write_bytes(changed)
        file.write_bytes(changed)
        try:
            readers.get(name).builder(folder / name)
        finally:
            file.write_bytes(content)

    return Cases(case, copy_of_input)


def image_cases(folder: Path) -> Cases:
    """Decodes changed JPEG, PNG and BMP files as the exported graph does. It answers a blank image, and never an error."""
    import cv2
    import numpy as np
    import tensorflow as tf

    from keras_skin.data.images.load import decode_or_blank

    y, x = np.mgrid[:60, :80]
    picture = np.stack([x * 3, y * 4, (x + y) % 256], axis=-1).astype(np.uint8)
    progressive = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    files = [
        cv2.imencode(end, picture, flags)[1].tobytes()
        for end, flags in ((".jpg", []), (".jpg", progressive), (".png", []), (".bmp", []))
    ]
    decode = tf.function(lambda contents: decode_or_blank(contents, (16, 24)), input_signature=[tf.TensorSpec([], tf.string)])
    copy_of_input = folder / "changed.image"

    def case(draw: random.Random) -> bytes:
        changed = changed_bytes(draw.choice(files), draw)
        copy_of_input.write_bytes(changed)
        image, valid = decode(changed)
        if (
            image.shape != (16, 24, 3)
            or not bool(tf.reduce_all(tf.math.is_finite(image)))
            or (not valid and tf.reduce_any(image > 0))
        ):
            raise Failed("the decoded image is not finite, of another size, or not blank though it is invalid")

    return Cases(case, copy_of_input)


def request_cases(folder: Path, run: Path) -> Cases:
    """Sends changed requests to the server of a run's export, by REST and by the page's form."""
    import cv2
    import numpy as np
    from starlette.testclient import TestClient

    from keras_skin.serving.app import create_app
    from keras_skin.serving.attributions import open_extras
    from keras_skin.serving.served import Served
    from keras_skin.workflow.prediction import open_exported

    served = Served(open_exported(run))
    client = TestClient(create_app(served, open_extras(run, served.model)), raise_server_exceptions=True)
    image = cv2.imencode(".png", np.full((40, 60, 3), (150, 180, 220), np.uint8))[1].tobytes()
    inputs = served.metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    blank: dict[str, Any] = {name: -1 if spec["dtype"] == "DT_FLOAT" else "" for name, spec in inputs.items()}
    copy_of_input = folder / "changed.request"

    def case(draw: random.Random) -> bytes:
        contents = changed_bytes(image, draw) if draw.random() < 0.5 else image
        body: Any = {"instances": [{**blank, "image_bytes": {"b64": base64.b64encode(contents).decode()}}]}
        raw = json.dumps(changed_json(body, draw) if draw.random() < 0.7 else body).encode()
        raw = changed_bytes(raw, draw) if draw.random() < 0.2 else raw
        copy_of_input.write_bytes(raw)
        if draw.random() < 0.3:
            answers = {name: draw.choice(("50", "male", *TEXTS[:8])).encode("utf-8", "replace").decode() for name in blank}
            name = draw.choice(("mole.png", "a" * 300, "../x.png", "\x00.png"))
            answer = client.post("/", files={"image": (name, contents, "image/png")}, data=answers)
        else:
            place = draw.choice(
                (f"/v1/models/{served.name}", f"/v1/models/{served.name}/versions/{'9' * draw.choice((1, 19, 5000))}", "/v1/x")
            )
            kind = draw.choice(("application/json", "application/json", "text/plain", "multipart/form-data", "a" * 99))
            answer = client.post(
                f"{place}:{draw.choice(('predict', 'predict', 'classify', ''))}", content=raw, headers={"content-type": kind}
            )
        if answer.status_code >= 500 or "Traceback" in answer.text or (answer.status_code >= 400 and len(answer.text) < 20):
            raise Failed(f"status {answer.status_code}: {answer.text[:500]}")

    return Cases(case, copy_of_input)


def fuzz(target: str, cases: Cases, count: int, seed: int, out: Path) -> Counter[str]:
    """Runs cases 0 to `count` - 1; returns how many were accepted, refused and failed. Failures are kept in `out`."""
    from keras_skin.registry import UserError

    outcomes: Counter[str] = Counter()
    slowest, started = 0.0, time.monotonic()
    for number in range(count):
        begin = time.monotonic()
        try:
            with time_limit(LONGEST):
                cases.run(random.Random(f"{target} {seed} {number}"))
            outcomes["accepted"] += 1
        except UserError as error:
            outcomes["refused"] += 1
            if not str(error).strip() or len(str(error)) > 20_000 or "Traceback" in str(error):
                outcomes["failed"] += 1
                keep(cases.input, out / f"{target}_{seed}_{number}", f"The sentence is empty or too long:\n{str(error)[:2000]}")
        except Exception:
            outcomes["failed"] += 1
            keep(cases.input, out / f"{target}_{seed}_{number}", traceback.format_exc())
        slowest = max(slowest, time.monotonic() - begin)
    counts = ", ".join(f"{outcomes[kind]:,} {kind}" for kind in ("accepted", "refused", "failed"))
    print(
        f"{target}: {count:,} cases, seed {seed}: {counts}; slowest {slowest:.2f} s, in all {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return outcomes


def keep(file: Path, stem: Path, text: str) -> None:
    """Keeps the input of a failed case and what came of it."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".input").write_bytes(file.read_bytes())
    stem.with_suffix(".txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the failures and of the files that are changed")
    for target in ("experiments", "tables", "images", "requests"):
        parser.add_argument(f"--{target}", type=int, default=0, metavar="N", help=f"number of cases of {target}")
    parser.add_argument("--run", type=Path, help="run whose export is served, for --requests")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.requests and not options.run:
        parser.error("--requests needs --run: a run with an export")
    targets: dict[str, Callable[[Path], Cases]] = {
        "experiments": experiment_cases,
        "tables": table_cases,
        "images": image_cases,
        "requests": lambda folder: request_cases(folder, options.run),
    }
    failed = 0
    for target, make in targets.items():
        count = getattr(options, target)
        if count:
            folder = options.out / "work" / target
            folder.mkdir(parents=True, exist_ok=True)
            failed += fuzz(target, make(folder), count, options.seed, options.out)["failed"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
