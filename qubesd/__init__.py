"""The qubes themselves: model, store, hypervisor and the Admin API's method table; knows no policy."""
