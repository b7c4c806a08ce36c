"""``tools/fuzz``: hostile requests, raw bytes and broken connections against a real policy daemon.

Everything that is sent follows from a seed and a number, so that one case can be sent again by itself.
"""
