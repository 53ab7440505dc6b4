"""What makes calls durable. No SQL, no database drivers."""
