"""Anthropic's messages: the request, and answers read and told."""
