"""The store of each stock version that is read, with what was peculiar to it (``spec/qubes-xml.md`` 1)."""

from __future__ import annotations

_UUID = "{}1111111-2222-4333-8444-555555555555"


def _document(
    *, root: str, properties: str, pool: str, net: str, qube: str, device: str, volume: str, label: str
) -> str:
    """A system of dom0, a template, a qube that gives network, and one of the user's."""
    return f"""<?xml version='1.0' encoding='utf-8'?>
{root}
  <labels>
    <label id="label-1" color="0xcc0000">red</label>
    <label id="label-5" color="0x555753">gray</label>
    <label id="label-8" color="0x000000">black</label>
  </labels>
  <pools>
    {pool}
    <pool driver="linux-kernel" dir_path="/var/lib/qubes/vm-kernels" name="linux-kernel"/>
  </pools>
  <properties>
    <property name="default_pool_kernel">linux-kernel</property>
    {properties}
  </properties>
  <domains>
    <domain id="domain-0" class="AdminVM">
      <properties>
        <property name="label">black</property>
      </properties>
      <features/>
      <tags/>
    </domain>
    <domain id="domain-1" class="TemplateVM">
      <properties>
        <property name="label">black</property>
        <property name="name">tpl</property>
        <property name="qid">1</property>
        <property name="uuid">{_UUID.format(1)}</property>
      </properties>
      <features/>
      <tags/>
      <volume-config/>
    </domain>
    <domain id="domain-2" class="AppVM">
      <properties>
        <property name="label">red</property>
        <property name="name">net</property>
        {net}
        <property name="provides_network">True</property>
        <property name="qid">2</property>
        <property name="template">tpl</property>
        <property name="uuid">{_UUID.format(2)}</property>
      </properties>
      <features/>
      <tags/>
      <devices class="pci">
        {device}
      </devices>
      <volume-config/>
    </domain>
    <domain id="domain-3" class="AppVM">
      <properties>
        <property name="label">{label}</property>
        <property name="name">work</property>
        <property name="qid">3</property>
        <property name="template">tpl</property>
        <property name="uuid">{_UUID.format(3)}</property>
        {qube}
      </properties>
      <features>
        <feature name="service.cups"></feature>
      </features>
      <tags>
        <tag name="created-by-dom0"/>
      </tags>
      <volume-config>
        {volume}
      </volume-config>
    </domain>
  </domains>
</qubes>
"""


_VOLUME = (
    '<volume name="private" pool="default" vid="appvms/work/private" revisions_to_keep="1" rw="True"'
    ' save_on_stop="True" snap_on_start="False" size="2147483648"{}/>'
)

STOCK_4_0 = _document(
    root='<qubes version="3.0">',
    properties='<property name="default_fw_netvm"></property><property name="default_netvm" ref="net"/>',
    pool='<pool driver="lvm_thin" name="default" thin_pool="pool00" volume_group="qubes_dom0"/>',
    net="",
    qube='<property name="hvm">True</property><property name="dispvm_allowed">True</property>'
    '<property name="default_dispvm">net</property>',
    device='<device backend-domain="dom0" id="00:19.0"><option name="no-strict-reset">True</option></device>',
    volume=_VOLUME.format(' internal="True"'),
    label="label-1",
)
STOCK_4_1 = _document(
    root="<qubes>",
    properties='<property name="default_netvm">net</property><property name="default_guivm">dom0</property>',
    pool='<pool driver="file-reflink" name="default" dir_path="/var/lib/qubes" revisions_to_keep="2"/>',
    net='<property name="netvm"></property>',
    qube='<property name="template_for_dispvms">True</property><property name="virt_mode">pvh</property>',
    device='<device backend-domain="dom0" id="00_19.0"><option name="no-strict-reset">True</option></device>',
    volume=_VOLUME.format(""),
    label="red",
)
STOCK_4_2 = _document(
    root="<qubes>",
    properties='<property name="default_netvm">net</property>'
    '<property name="default_audiovm">dom0</property>',
    pool='<pool driver="lvm_thin" name="default" thin_pool="vm-pool" volume_group="qubes_dom0"/>',
    net='<property name="netvm"></property>',
    qube='<property name="template_for_dispvms">True</property><property name="bootmode">default</property>',
    device='<device backend-domain="dom0" id="00_19.0" required="yes">'
    '<option name="identity">0x8086:0x10ef::p020000</option>'
    '<option name="no-strict-reset">True</option></device>',
    volume=_VOLUME.format(' ephemeral="False"'),
    label="red",
)
STOCK_4_3 = _document(
    root="<qubes>",
    properties='<property name="default_netvm">net</property><property name="default_dispvm">work</property>',
    pool='<pool driver="zfs" name="default" container="rpool/vms" snap_on_start_forbidden="False"/>',
    net='<property name="netvm"></property>',
    qube='<property name="template_for_dispvms">True</property>',
    device='<device backend-domain="dom0" id="00_1c.0-00_00.0" mode="required"'
    ' identity="0x8086:0x10ef::p020000">'
    '<option name="no-strict-reset">True</option></device>',
    volume=_VOLUME.format(""),
    label="red",
)
