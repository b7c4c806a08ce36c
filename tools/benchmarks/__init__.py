"""What ``tools/bench`` measures; one module for each suite, with ``run() -> list[Result]``."""
