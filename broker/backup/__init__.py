"""``qube-backup``: looking into archives of backups, and restoring them through the Admin API."""
