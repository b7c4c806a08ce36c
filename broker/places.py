"""Where a stock dom0 has its sockets and programs. It imports nothing: ``qrexec-policy-exec`` is
to start fast."""

POLICY_SOCKET = "/var/run/qubes/policy.sock"
QUBESD_SOCKET = "/var/run/qubesd.sock"
QUBESD_INTERNAL_SOCKET = "/var/run/qubesd.internal.sock"
SERVICES = "/etc/qubes-rpc"
"""The folder of dom0's qrexec services."""

QREXEC_CLIENT = "/usr/lib/qubes/qrexec-client"
