"""Where a stock dom0 has its sockets and programs. It imports nothing: ``qrexec-policy-exec`` is
to start fast."""

POLICY_SOCKET = "/var/run/qubes/policy.sock"
QUBESD_SOCKET = "/var/run/qubesd.sock"
QUBESD_INTERNAL_SOCKET = "/var/run/qubesd.internal.sock"
QUBESD_MISC_SOCKET = "/var/run/qubesd.misc.sock"
RUN = "/run/qubes"
SERVICES = "/etc/qubes-rpc"
"""The folder of dom0's qrexec services."""

QREXEC_CLIENT = "/usr/lib/qubes/qrexec-client"

STATUS_SOCKET = "policy-status.sock"
"""The name of the socket, beside ``policy.sock``, on which ``qrexec-policy-daemon`` tells what it decides
by."""

METRICS_SOCKET = "policy-metrics.sock"
"""The name of the socket beside that one which has its figures."""

TRIAL = "qubes-admin-core"
"""The folder, in ``/run``, of the sockets of a policy daemon that runs beside the stock one."""
