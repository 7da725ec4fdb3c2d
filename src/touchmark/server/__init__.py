"""The server: settings, and the only place where the parts are joined."""
