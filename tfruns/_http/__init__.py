"""Requests and responses: transport, credentials, retries, limits, errors of responses, events. No pages, no walks."""
