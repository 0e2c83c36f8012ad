"""OpenAI's responses: the request, and answers read and told."""
