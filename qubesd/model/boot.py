"""How a qube boots: kind of machine, kernel, options and boot mode (``spec/domains.md`` 3.6)."""

from __future__ import annotations

from qubesd.errors import BadPropertyValue
from qubesd.model import features
from qubesd.model.lineage import own, template_of, templates
from qubesd.model.state import DOM0, Klass, Qube, Value
from qubesd.model.view import View

_MODES = ("hvm", "pv", "pvh")
_OWN_MODE = "default"
_LONGEST_OPTIONS = 512
_OPTIONS = "swiotlb=2048"
_SUSPEND = " qubes_exp_pm_use_suspend=1"


def has_pci(qube: Qube) -> bool:
    """Whether a PCI device is assigned; such a qube's memory cannot move and it needs a full machine."""
    return any(assignment.devclass == "pci" for assignment in qube.assignments)


def virt_mode(view: View, qube: Qube) -> Value:
    if has_pci(qube):
        return "hvm"
    template = template_of(view.system, qube)
    return "pvh" if template is None else own(view, template, "virt_mode", virt_mode)


def virt_mode_rule(value: str) -> Value:
    folded = value.lower()
    if folded not in _MODES:
        raise BadPropertyValue(f"expected hvm, pv or pvh, found {value[:64]!r}")
    return folded


def virt_mode_fits(view: View, owner: Qube, value: str) -> Value:
    if value == "pvh" and has_pci(owner):
        raise BadPropertyValue(f"qube {owner.name!r} has PCI devices, which 'pvh' cannot have")
    return value


def kernel(view: View, qube: Qube) -> Value:
    template = template_of(view.system, qube)
    if template is None:
        return view.system.properties.get("default_kernel")
    return own(view, template, "kernel", kernel)


def kernel_rule(value: str) -> Value:
    # A kernel is a directory of the kernel pool; no text may lead out of it.
    if "/" in value or value in (".", ".."):
        raise BadPropertyValue(f"{value[:64]!r} is no kernel")
    return value


def kernel_fits(view: View, owner: Qube | None, value: str) -> Value:
    """Empty stands for the qube's own boot loader; anything else is installed."""
    if value and value not in view.kernels():
        raise BadPropertyValue(f"kernel {value[:64]!r} is not installed")
    return value


def kernelopts(view: View, qube: Qube) -> Value:
    version = own(view, qube, "kernel", kernel)
    if not isinstance(version, str) or not version:
        return ""
    if has_pci(qube):
        pci = view.kernel_options(version, True) or ""
        return pci + _SUSPEND if view.system.qubes[DOM0].features.get("suspend-s0ix") else pci
    template = template_of(view.system, qube)
    if template is not None:
        return own(view, template, "kernelopts", kernelopts)
    options = view.kernel_options(version, False)
    return _OPTIONS if options is None else options


def kernelopts_rule(value: str) -> Value:
    if len(value) > _LONGEST_OPTIONS:
        raise BadPropertyValue(f"kernel options have at most {_LONGEST_OPTIONS} characters")
    return value


def bootmode(view: View, qube: Qube) -> Value:
    """The mode that the qube itself asks for, else what the TemplateVM gives its qubes, where it exists."""
    wishes: list[Value] = [qube.features.get("boot-mode.active")]
    for template in templates(view.system, qube):
        if template is not qube and template.klass is Klass.TEMPLATE:
            wishes.append(own(view, template, "appvm_default_bootmode", appvm_default_bootmode))
    for wish in wishes:
        if isinstance(wish, str) and _is_bootmode(view, qube, wish):
            return wish
    return _OWN_MODE


def appvm_default_bootmode(view: View, qube: Qube) -> Value:
    return qube.features.get("boot-mode.appvm-default") or _OWN_MODE


def _is_bootmode(view: View, qube: Qube, mode: str) -> bool:
    if mode == _OWN_MODE:
        return True
    return features.with_template(view, qube, f"boot-mode.kernelopts.{mode}") is not None
