"""What those who write policy type, ``qubes-policy`` and ``qubes-policy-editor``, over the library of
edits."""
