"""Backups, archive format 4: profiles, and what an archive is made of (``spec/backup.md``)."""
