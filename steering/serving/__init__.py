"""A steered model for other programs: an OpenAI-compatible endpoint, or a checkpoint they load."""

from steering.demo.session.endpoint import KEY_VARIABLE
from steering.serving.exported_checkpoint import (
    EditOf,
    Exported,
    edit_of_file,
    export_edited,
    export_scaled,
    plain_fine_tune,
)
from steering.serving.http_app import http_app
from steering.serving.run_server import require_server, serve
from steering.serving.served_models import Bounds, ServedModels

__all__ = [
    "KEY_VARIABLE",
    "Bounds",
    "EditOf",
    "Exported",
    "ServedModels",
    "edit_of_file",
    "export_edited",
    "export_scaled",
    "http_app",
    "plain_fine_tune",
    "require_server",
    "serve",
]
