"""Running a registry: setting up, checking, backing up, restoring. Calls services and storage, knows no protocol."""
