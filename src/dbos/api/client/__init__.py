"""The client: an application's system database, used from another process."""
