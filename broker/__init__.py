"""The way between a caller's bytes and a handler: wire, identity, decision, dispatch, audit."""
