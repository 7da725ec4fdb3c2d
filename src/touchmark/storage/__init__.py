"""Every SQL statement. Takes an open transaction, returns domain values; never commits, never decides."""
