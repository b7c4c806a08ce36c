"""``tools/consents``: whether every call that a rule asks about runs on a yes of its own."""
