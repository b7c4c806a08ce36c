"""Thin mains of the repository: arguments in, one library call, text out."""
