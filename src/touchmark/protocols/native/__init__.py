"""The native protocol, /api/v1: JSON over the services, one file a noun. No rule and no SQL here."""
