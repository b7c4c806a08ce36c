"""The core: one system, its run state, and the verbs that change it."""
