"""An OpenAI-compatible endpoint over a pair of models, one of them steered by each request."""

from steering.serving.http_app import http_app
from steering.serving.run_server import KEY_VARIABLE, require_server, serve
from steering.serving.served_models import Bounds, ServedModels

__all__ = ["KEY_VARIABLE", "Bounds", "ServedModels", "http_app", "require_server", "serve"]
