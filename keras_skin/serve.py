"""`python -m keras_skin.serve MODEL`: a local page to try a model, and TensorFlow Serving's REST interface.

Exit codes: 2 a mistake the user can fix (message, no traceback); 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import re
import socket
import sys
from collections.abc import Sequence

from keras_skin.console import end_program, exit_code, quiet_import
from keras_skin.presets.sources import MODEL_HELP, locate
from keras_skin.registry import UserError

MODULES = ("fastapi", "uvicorn", "python_multipart")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NAME = re.compile(r"[a-z0-9_.-]+|[0-9a-f:]+", re.IGNORECASE)  # the second is an IPv6 address


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_skin.serve",
        description="Serve a preset or the exported model of a run: a page to try it on an image, and the REST interface of "
        "TensorFlow Serving. Research software, not a medical device.",
        epilog="GET /                                  the page: outline, probabilities, heat map, clinical fields\n"
        "POST /v1/models/NAME:predict           like TensorFlow Serving, see docs/serving.md\n"
        "GET /v1/models/NAME[/metadata]         status, signatures\n\n"
        "examples:  python -m keras_skin.serve jrl_isic_lite\n"
        "           python -m keras_skin.serve runs/jrl_ph2-20260131-101500\n"
        "           python -m keras_skin.serve runs/tdbn_ham10000-1/saved_model/1 --port 9000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further name under which this server may be asked, such as that of a proxy; may be repeated",
    )
    parser.add_argument("--port", type=int, default=8501, help="port to listen at; 0 takes a free one (default: 8501)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parser().parse_args(arguments)
    return exit_code(lambda: _serve(options), "Interrupted; the server has stopped.")


def _serve(options: argparse.Namespace) -> int:
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'Serving needs {", ".join(missing)}, which is not installed: pip install "keras_skin[serve]"')
    allowed = _names(options.allow_host)
    with _listening(options.host, options.port) as listener:  # fails before minutes of loading
        with quiet_import():
            import uvicorn

            from keras_skin.serving.app import create_app
            from keras_skin.serving.attributions import open_extras
            from keras_skin.serving.connections import configuration
            from keras_skin.serving.served import Served
            from keras_skin.workflow.prediction import open_exported
        folder = locate(options.model)
        model = open_exported(folder)
        extras = open_extras(folder, model)
        served = Served(model)
        if model.about.get("synthetic"):
            print("SYNTHETIC: this model was trained on synthetic images; its predictions mean nothing.")
        if model.fields and extras.reason:
            print(extras.reason)
        host, port = listener.getsockname()[:2]
        is_local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        if not is_local:
            print(
                f"WARNING: listening at {options.host}: other machines can reach and use this server; there is no "
                "authentication and no encryption. Research software, not a medical device.",
                file=sys.stderr,
            )
        hosts = {*LOOPBACK, options.host.lower()} if is_local or allowed else None
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        listener.listen()  # a client that reads the address below waits until the server answers, instead of being refused
        print(f"Page: {url}/   REST: {url}/v1/models/{served.name}:predict   Ctrl-C stops it.", flush=True)
        uvicorn.Server(configuration(create_app(served, extras, hosts, allowed))).run(sockets=[listener])
    return 0


def _names(names: Sequence[str]) -> set[str]:
    """Returns the names of `--allow-host` in small letters, checked."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--allow-host {name}: expected a plain name without scheme, port and path, such as skin.example.org."
            )
    return {name.lower() for name in names}


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet accepting connections."""
    if not 0 <= port < 65536:
        raise UserError(f"--port {port}: expected a number from 0 to 65535.")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UserError(f"Cannot listen at {host}, port {port}: {error.strerror or error}. Try another --port.") from None


if __name__ == "__main__":
    end_program(main())
