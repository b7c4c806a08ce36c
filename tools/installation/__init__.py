"""How it gets onto a machine: what lies where, the packages, and the switch between our policy daemon and
the stock one. Only the standard library is needed, so that a dom0 without anything of ours can run it."""
