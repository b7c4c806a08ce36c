"""``qrexec-policy-agent``: puts the policy's questions to the person in front of the screen, one at a time.

It runs in whatever qube has the screen, with that system's own Python: nothing but the standard library is
imported here, and ``gi`` for the windows.
"""
