"""``tools/crash``: a daemon that is killed amid mixed writes, and what has to be there when it is back."""
