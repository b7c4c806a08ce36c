"""The demo system: a daemon under ``./var``, two operators who share some qubes, and a tour of it."""
