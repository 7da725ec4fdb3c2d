"""Telling others what happened. Here: webhooks.py sends. What may be told, and to whom, is decided in services."""
