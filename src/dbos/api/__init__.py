"""What an application calls; thin."""
