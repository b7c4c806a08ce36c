"""``tools/load``: one flooding caller, large payloads and slow readers, beside callers that do no harm."""
