"""The web application: the page, and TensorFlow Serving's REST interface."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from keras_skin.serving import limits
from keras_skin.serving.attributions import RunExtras
from keras_skin.serving.limits import Refused
from keras_skin.serving.page import check_answers, form_fields, look
from keras_skin.serving.served import Served

log = logging.getLogger("keras_skin")

_PREDICTION = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?:(?P<verb>classify|regress|predict)",
    re.IGNORECASE,
)
_STATUS = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<metadata>/metadata)?",
    re.IGNORECASE,
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NO_JSON = ("multipart/", "image/", "audio/", "video/")
FRAGMENT = "x-fragment"
"""The header with which the page's script asks for the answer alone."""

T = TypeVar("T")


def create_app(served: Served, extras: RunExtras) -> FastAPI:
    """The application that serves one model.

    Args:
        served: the model.
        extras: what its run adds to the page.
    """
    app = FastAPI(title="keras_skin", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_guarded)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(HTTPException)(_not_there)
    model_slots = anyio.CapacityLimiter(limits.AT_ONCE)

    async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=model_slots)

    _add_rest(app, served, in_thread)
    _add_page(app, served, extras, in_thread)
    return app


InThread = Callable[..., Awaitable[Any]]


def _add_rest(app: FastAPI, served: Served, in_thread: InThread) -> None:
    @app.post("/v1/{path:path}")
    async def predict(request: Request) -> Response:
        asked = _PREDICTION.fullmatch(request.url.path)
        if asked is None:
            raise _malformed(request)
        _check_name(served, asked.groupdict(), "Servable not found for request: {}")
        if asked["verb"].lower() != "predict":
            raise Refused(400, f"This model has no signature to {asked['verb']}; expected :predict.")
        kind = request.headers.get("content-type", "")
        if kind.lower().startswith(_NO_JSON):
            raise Refused(415, f"The content type is {kind.split(';')[0]}, expected application/json.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "A compressed body is not taken; send the JSON as it is.")
        body = await limits.bounded(request, limits.MAX_JSON, "The body").body()
        return Response(await in_thread(served.predict, body), media_type="application/json")

    @app.get("/v1/{path:path}")
    async def status(request: Request) -> Response:
        asked = _STATUS.fullmatch(request.url.path)
        if asked is None:
            raise _malformed(request)
        if asked["name"] is None:
            raise Refused(400, f"Missing model name in request. Served here: {served.name}.")
        _check_name(served, asked.groupdict(), "Could not find any versions of model {}")
        return JSONResponse(served.metadata if asked["metadata"] else served.status())


def _add_page(app: FastAPI, served: Served, extras: RunExtras, in_thread: InThread) -> None:
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("keras_skin.serving", ""), PackageLoader("keras_skin.evaluation", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    fields = form_fields(served.model, extras.complete)
    style, script = (templates.get_template(f"page.{kind}.j2").render() for kind in ("css", "js"))
    known = {
        "served": served,
        "about": served.model.about,
        "fields": fields,
        "extras": extras,
        "megabytes": limits.MAX_UPLOAD // 2**20,
        "max_bytes": limits.MAX_UPLOAD,
    }

    def rendered(request: Request, status: int = 200, **told: Any) -> HTMLResponse:
        template = "result.html.j2" if FRAGMENT in request.headers else "page.html.j2"
        empty: dict[str, Any] = {"shown": None, "error": "", "answers": {}}
        return HTMLResponse(templates.get_template(template).render(known | empty | told), status)

    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> Response:
        return rendered(request)

    @app.post("/", response_class=HTMLResponse)
    async def answer(request: Request) -> Response:
        answers: dict[str, str] = {}
        try:
            name, contents = await _form(request, len(fields), answers)
            checked = check_answers(fields, answers)
            shown = await in_thread(look, served, extras, name, contents, checked)
        except Refused as refusal:
            return rendered(request, refusal.status, error=str(refusal), answers=answers)
        return rendered(request, shown=shown, answers=answers)

    @app.get("/page.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js")
    async def js() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)


async def _form(request: Request, fields: int, answers: dict[str, str]) -> tuple[str, bytes]:
    """Name and contents of the image in a form; its other fields are put into `answers`."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refused(415, f"The content type is {kind.split(';')[0] or 'not given'}, expected multipart/form-data.")
    whole = limits.bounded(request, limits.MAX_UPLOAD + limits.MAX_FIELDS, "The image")
    try:
        async with whole.form(max_files=1, max_fields=fields + 8, max_part_size=limits.MAX_FIELDS) as form:
            upload = form.get("image")
            answers |= {key: value for key, value in form.items() if isinstance(value, str) and key != "image"}
            if not isinstance(upload, UploadFile) or not upload.filename:
                raise Refused(400, "No image was sent; expected a JPEG, PNG or BMP file in the field 'image'.")
            return upload.filename, await upload.read()
    except HTTPException as error:
        raise Refused(400, f"The form cannot be read: {error.detail}. Expected one file and the model's fields.") from None


def _check_name(served: Served, asked: Mapping[str, str | None], message: str) -> None:
    name, version, label = asked["name"], asked["version"], asked["label"]
    here = f"Served here: {served.name}, version {served.version}."
    if label is not None:
        raise Refused(400, f"Unrecognized servable version label: {label}. {here}")
    if name != served.name or (version is not None and int(version) != served.version):
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise Refused(404, f"{message.format(which)}. {here}")


def _malformed(request: Request) -> Refused:
    return Refused(
        400,
        f"Malformed request: {request.method} {request.url.path}. Expected POST /v1/models/NAME[/versions/N]:predict, or GET "
        "/v1/models/NAME[/versions/N][/metadata].",
    )


async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Adds the security headers, and keeps errors of ours from what is logged of a request: places in the code, no values."""
    try:
        response = await call_next(request)
    except Exception as error:
        log.error("%s while answering a request:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        response = JSONResponse({"error": "The server made a mistake with this request; it goes on."}, 500)
    response.headers.update(_HEADERS)
    return response


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{error.detail}: {request.method} {request.url.path}"}, error.status_code, error.headers)
