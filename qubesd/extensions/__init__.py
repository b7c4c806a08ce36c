"""The extensions that every daemon has; each is an ``Extension`` as anybody could write it."""
