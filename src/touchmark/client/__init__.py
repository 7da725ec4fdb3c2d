"""The SDK: speaks /api/v1 and /v2 to a server. Private modules; what is public is re-exported by `touchmark`."""
