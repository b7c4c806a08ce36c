"""What runs a qube: the hypervisor's protocol first, then its drivers."""
