"""Translation only: wire to service call and back. No rule, no SQL. Protocols do not import each other."""
