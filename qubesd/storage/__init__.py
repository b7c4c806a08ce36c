"""Storage pools: blocking verbs on images, each driver behind the same protocol (``spec/storage.md``)."""
