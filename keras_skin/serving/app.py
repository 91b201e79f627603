"""The web application: the page and TensorFlow Serving's REST interface."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from keras_skin.serving import limits
from keras_skin.serving.attributions import RunExtras
from keras_skin.serving.guard import Guard
from keras_skin.serving.limits import Refused
from keras_skin.serving.page import check_answers, check_upload, form_fields, predict_upload
from keras_skin.serving.served import Served
from keras_skin.serving.slots import Slots
from keras_skin.templates import templates

_PREDICTION = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?:(?P<verb>classify|regress|predict)",
    re.IGNORECASE,
)
_STATUS = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?(?P<metadata>/metadata)?",
    re.IGNORECASE,
)
_NOT_JSON = ("multipart/", "image/", "audio/", "video/", "text/")
FRAGMENT = "x-fragment"
"""The page's script sends this header to get the answer without the page around it."""


def create_app(served: Served, extras: RunExtras, hosts: Collection[str] | None = None, allowed: Collection[str] = ()) -> FastAPI:
    """Builds the application that serves one model, with what its run adds to the page.

    Args:
        served: the model.
        extras: what its run adds.
        hosts: the names in `Host` that may ask; None accepts every name.
        allowed: names whose pages may ask as well, such as a proxy's.
    """
    app = FastAPI(title="keras_skin", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, hosts=hosts, allowed=allowed)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(HTTPException)(_http_error)
    slots = Slots()
    _add_rest(app, served, slots)
    _add_page(app, served, extras, slots)
    return app


def _add_rest(app: FastAPI, served: Served, slots: Slots) -> None:
    @app.post("/v1/{path:path}")
    async def predict(request: Request) -> Response:
        match = _PREDICTION.fullmatch(request.url.path)
        if match is None:
            raise _malformed(request)
        _check_name(served, match.groupdict(), "Servable not found for request: {}")
        if match["verb"].lower() != "predict":
            raise Refused(400, f"This model does not support :{match['verb']}; expected :predict.")
        kind = request.headers.get("content-type", "")
        if kind.lower().startswith(_NOT_JSON):
            raise Refused(415, f"The content type is {kind.split(';')[0]}, expected application/json.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(415, "Compressed bodies are not supported; send plain JSON.")
        body = await limits.bounded(request, limits.MAX_JSON, "The body").body()
        question, cost = await slots.check(served.read, body)
        return Response(await slots.call(request, cost, served.answer, question), media_type="application/json")

    @app.get("/v1/{path:path}")
    async def status(request: Request) -> Response:
        match = _STATUS.fullmatch(request.url.path)
        if match is None:
            raise _malformed(request)
        if match["name"] is None:
            raise Refused(400, f"Missing model name in request. This server has: {served.name}.")
        _check_name(served, match.groupdict(), "Could not find any versions of model {}")
        return JSONResponse(served.metadata if match["metadata"] else served.status())


def _add_page(app: FastAPI, served: Served, extras: RunExtras, slots: Slots) -> None:
    environment = templates("keras_skin.serving", "keras_skin.evaluation")
    fields = form_fields(served.model, extras.complete)
    style, script = (environment.get_template(f"page.{kind}.j2").render() for kind in ("css", "js"))
    context = {
        "served": served,
        "about": served.model.about,
        "fields": fields,
        "extras": extras,
        "megabytes": limits.MAX_UPLOAD // 2**20,
        "max_bytes": limits.MAX_UPLOAD,
        "result": None,
        "error": "",
        "answers": {},
    }

    def render(request: Request, status: int = 200, **values: Any) -> HTMLResponse:
        template = "result.html.j2" if FRAGMENT in request.headers else "page.html.j2"
        return HTMLResponse(environment.get_template(template).render(context | values), status)

    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> Response:
        return render(request)

    @app.post("/", response_class=HTMLResponse)
    async def upload(request: Request) -> Response:
        answers: dict[str, str] = {}
        try:
            name, contents = await _read_form(request, len(fields), answers)
            checked = check_answers(fields, answers)
            cost = await slots.check(check_upload, name, contents)
            result = await slots.call(request, cost, predict_upload, served, extras, name, contents, checked)
        except Refused as refusal:
            return render(request, refusal.status, error=str(refusal), answers=answers)
        return render(request, result=result, answers=answers)

    @app.get("/page.css")
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js")
    async def js() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)


async def _read_form(request: Request, fields: int, answers: dict[str, str]) -> tuple[str, bytes]:
    """The name and contents of a form's image; puts its other fields into `answers`."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refused(415, f"The content type is {kind.split(';')[0] or 'missing'}, expected multipart/form-data.")
    if "charset" in kind.lower() and "utf-8" not in kind.lower():
        raise Refused(415, "The form is encoded in another alphabet, expected UTF-8.")
    bounded = limits.bounded(request, limits.MAX_UPLOAD + limits.MAX_FIELDS, "The image")
    try:
        async with bounded.form(max_files=1, max_fields=fields + 8, max_part_size=limits.MAX_FIELDS) as form:
            upload = form.get("image")
            answers |= {key: value for key, value in form.items() if isinstance(value, str) and key != "image"}
            if not isinstance(upload, UploadFile) or not upload.filename:
                raise Refused(400, "No image was sent; expected a JPEG, PNG or BMP file in the field 'image'.")
            return upload.filename, await upload.read()
    except HTTPException as error:
        raise Refused(400, f"The form cannot be read: {error.detail}. Expected one file and the model's fields.") from None


def _check_name(served: Served, groups: Mapping[str, str | None], message: str) -> None:
    name, version, label = groups["name"], groups["version"], groups["label"]
    available = f"This server has: {served.name}, version {served.version}."
    if label is not None:
        raise Refused(400, f"Unrecognized servable version label: {label}. {available}")
    if name != served.name or (version is not None and int(version) != served.version):
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise Refused(404, f"{message.format(which)}. {available}")


def _malformed(request: Request) -> Refused:
    return Refused(
        400,
        f"Malformed request: {request.method} {request.url.path}. Expected POST /v1/models/NAME[/versions/N]:predict, or GET "
        "/v1/models/NAME[/versions/N][/metadata].",
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{error.detail}: {request.method} {request.url.path}"}, error.status_code, error.headers)
