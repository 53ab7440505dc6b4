"""What is written down: the store contract, SQLite and Postgres behind it, and their SQL. No user code runs here."""
