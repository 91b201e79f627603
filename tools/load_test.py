"""Asks a running `python -m keras_skin.serve` many times at once, and tells errors, times, throughput and memory:

    python tools/load_test.py http://127.0.0.1:8501/v1/models/jrl:predict mole.jpg --pid PID

Each request sends the image as base64 over REST, on a connection kept per thread. Clinical fields of the model are sent as not
known. Memory is the resident set of the server's process (`/proc/PID/status`), after a few requests that are not counted, and
again at the end.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

WARM_UP = 8


class Load(NamedTuple):
    """What was measured.

    Attributes:
        seconds: of each request that was answered.
        errors: sentences about the others.
        duration: from the first request to the last answer.
    """

    seconds: list[float]
    errors: list[str]
    duration: float


def request_body(address: urllib.parse.SplitResult, image: bytes) -> bytes:
    """One instance with everything that the model takes: the image, and clinical fields that are not known."""
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=60)
    connection.request("GET", address.path.removesuffix(":predict") + "/metadata")
    told = json.loads(connection.getresponse().read())
    connection.close()
    inputs = told["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    blank: dict[str, object] = {name: -1 if spec["dtype"] == "DT_FLOAT" else "" for name, spec in inputs.items()}
    return json.dumps({"instances": [blank | {"image_bytes": {"b64": base64.b64encode(image).decode()}}]}).encode()


def load(url: str, image: bytes, requests: int, concurrency: int) -> Load:
    """Sends the requests from as many threads as are to be under way at once."""
    address = urllib.parse.urlsplit(url)
    body, own = request_body(address, image), threading.local()
    seconds: list[float] = []
    errors: list[str] = []
    connections: list[http.client.HTTPConnection] = []

    def ask(_: int) -> None:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=120)
            connections.append(own.connection)
        begun = time.perf_counter()
        try:
            own.connection.request("POST", address.path, body, {"Content-Type": "application/json"})
            response = own.connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            own.connection.close()
            errors.append(f"{type(error).__name__}: {error}")
            return
        if response.status == 200 and json.loads(answer)["predictions"][0]["valid"]:
            seconds.append(time.perf_counter() - begun)
        else:
            errors.append(f"{response.status}: {answer[:200].decode(errors='replace')}")

    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(ask, range(requests)))
    duration = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    return Load(seconds, errors, duration)


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of :predict")
    parser.add_argument("image", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--pid", type=int, help="of the server")
    options = parser.parse_args(arguments)
    image = options.image.read_bytes()
    load(options.url, image, WARM_UP, options.concurrency)
    before = resident_megabytes(options.pid) if options.pid else 0.0
    done = load(options.url, image, options.requests, options.concurrency)
    print(f"{options.requests} requests, {options.concurrency} at once, image of {len(image) / 1024:.0f} KiB")
    print(f"errors: {len(done.errors)}", *sorted(set(done.errors))[:5], sep="\n  ")
    if done.seconds:
        p50, p95 = np.percentile(done.seconds, [50, 95])
        rate = len(done.seconds) / done.duration
        print(f"p50 {p50:.3f} s   p95 {p95:.3f} s   longest {max(done.seconds):.3f} s   {rate:.1f} requests/s")
    if options.pid:
        print(f"resident memory: {before:.0f} MiB before, {resident_megabytes(options.pid):.0f} MiB after")
    return 1 if done.errors else 0


if __name__ == "__main__":
    sys.exit(main())
