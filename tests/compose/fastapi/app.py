"""A stateless service behind the front: models are validated, and nothing is kept."""

import os
import socket

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

INSTANCE = os.environ.get("INSTANCE", socket.gethostname())
HEADERS = {"X-Served-By": INSTANCE, "Cache-Control": "no-store"}

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


class Model(BaseModel):
    """What is posted to /models."""

    name: str = Field(min_length=1, max_length=64)
    parameters: int = Field(gt=0)
    tags: list[str] = Field(default=[], max_length=10)


@app.post("/models")
async def create_model(model: Model) -> JSONResponse:
    return JSONResponse({"data": model.model_dump(), "meta": {"served_by": INSTANCE}}, 201, HEADERS)


@app.get("/health")
async def health() -> JSONResponse:
    return JSONResponse({"status": "ok", "served_by": INSTANCE}, headers=HEADERS)


@app.get("/whoami")
async def whoami(request: Request) -> JSONResponse:
    """What reached this instance of the request's head, and from where."""
    # Each with all its values.
    headers = {name: request.headers.getlist(name) for name in request.headers}
    seen = {"peer": request.client.host if request.client else None, "headers": headers}
    return JSONResponse({"data": seen, "meta": {"served_by": INSTANCE}}, headers=HEADERS)
