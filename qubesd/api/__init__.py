"""The Admin API: one method table, then a file of handlers for each noun."""
