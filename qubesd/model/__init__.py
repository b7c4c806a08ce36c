"""What a qube is: classes, labels, properties, features, tags; no I/O."""
