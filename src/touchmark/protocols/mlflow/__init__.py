"""MLflow's REST API, as its unmodified clients send and expect it. README.md lists every quirk and every difference."""
