"""Sends many concurrent requests to a running `python -m keras_skin.serve`; prints errors, times, throughput and memory:

    python tools/load_test.py http://127.0.0.1:8501/v1/models/jrl:predict mole.jpg --pid PID

Each request sends the image as base64 over REST. Each thread keeps one connection. Clinical fields are sent as missing. Memory is
the resident set of the server's process (`/proc/PID/status`), after a few warm-up requests and at the end.
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
    """Measurements of a load test.

    Attributes:
        seconds: time of each successful request.
        errors: a sentence for each failed request.
        duration: seconds from the first request to the last answer.
    """

    seconds: list[float]
    errors: list[str]
    duration: float


def request_body(address: urllib.parse.SplitResult, image: bytes) -> bytes:
    """Returns a request with one instance: the image, and every clinical field as missing."""
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=60)
    connection.request("GET", address.path.removesuffix(":predict") + "/metadata")
    metadata = json.loads(connection.getresponse().read())
    connection.close()
    inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    blank: dict[str, object] = {name: -1 if spec["dtype"] == "DT_FLOAT" else "" for name, spec in inputs.items()}
    return json.dumps({"instances": [blank | {"image_bytes": {"b64": base64.b64encode(image).decode()}}]}).encode()


def load(url: str, image: bytes, requests: int, concurrency: int) -> Load:
    """Sends the requests from `concurrency` threads."""
    address = urllib.parse.urlsplit(url)
    body, thread = request_body(address, image), threading.local()
    seconds: list[float] = []
    errors: list[str] = []
    connections: list[http.client.HTTPConnection] = []

    def ask(_: int) -> None:
        if not hasattr(thread, "connection"):
            thread.connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=120)
            connections.append(thread.connection)
        start = time.perf_counter()
        try:
            thread.connection.request("POST", address.path, body, {"Content-Type": "application/json"})
            response = thread.connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            thread.connection.close()
            errors.append(f"{type(error).__name__}: {error}")
            return
        if response.status == 200 and json.loads(answer)["predictions"][0]["valid"]:
            seconds.append(time.perf_counter() - start)
        else:
            errors.append(f"{response.status}: {answer[:200].decode(errors='replace')}")

    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(ask, range(requests)))
    duration = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return Load(seconds, errors, duration)


def resident_megabytes(pid: int) -> float:
    """Returns the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of :predict")
    parser.add_argument("image", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--pid", type=int, help="process id of the server")
    options = parser.parse_args(arguments)
    image = options.image.read_bytes()
    load(options.url, image, WARM_UP, options.concurrency)
    before = resident_megabytes(options.pid) if options.pid else 0.0
    result = load(options.url, image, options.requests, options.concurrency)
    print(f"{options.requests} requests, {options.concurrency} at once, image of {len(image) / 1024:.0f} KiB")
    print(f"errors: {len(result.errors)}", *sorted(set(result.errors))[:5], sep="\n  ")
    if result.seconds:
        p50, p95 = np.percentile(result.seconds, [50, 95])
        rate = len(result.seconds) / result.duration
        print(f"p50 {p50:.3f} s   p95 {p95:.3f} s   longest {max(result.seconds):.3f} s   {rate:.1f} requests/s")
    if options.pid:
        print(f"resident memory: {before:.0f} MiB before, {resident_megabytes(options.pid):.0f} MiB after")
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
