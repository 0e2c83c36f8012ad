"""OpenAI's responses: the request, and answers read and told. The gateway keeps none: each request says everything."""

from model_gateway.dialects.responses.errors import stream_error
from model_gateway.dialects.responses.request import ResponsesRequest, parse_responses

__all__ = ["ResponsesRequest", "parse_responses", "stream_error"]
