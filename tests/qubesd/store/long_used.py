"""The store of a machine that was upgraded from Qubes 4.0 to 4.3, used by many hands and edited by some."""

from __future__ import annotations

_UUID = "{:08x}-2222-4333-8444-555555555555"


def _qube(number: int, klass: str, name: str, properties: str = "", inside: str = "") -> str:
    return f"""
    <domain id="domain-{number}" class="{klass}">
      <properties>
        <property name="name">{name}</property><property name="qid">{number}</property>
        <property name="uuid">{_UUID.format(number)}</property>
        <property name="label">red</property>{properties}
      </properties>{inside}
    </domain>"""


def _app(number: int, name: str, properties: str = "", inside: str = "") -> str:
    return _qube(number, "AppVM", name, f'<property name="template">fedora-29</property>{properties}', inside)


_THIN = """
      <volume-config>
        <volume name="root" pool="lvm" vid="qubes_dom0/vm-{0}-root" revisions_to_keep="0" rw="True"
          save_on_stop="False" snap_on_start="True" size="10737418240" source="qubes_dom0/vm-fedora-29-root"/>
        <volume name="private" pool="lvm" vid="qubes_dom0/vm-{0}-private" revisions_to_keep="-1" rw="True"
          save_on_stop="True" snap_on_start="False" size="2147483648" internal="True" x-quota="7"/>
        <volume name="volatile" pool="lvm" vid="qubes_dom0/vm-{0}-volatile" revisions_to_keep="0" rw="True"
          save_on_stop="False" snap_on_start="False" ephemeral="True" size="10737418240"/>
        <volume name="kernel" pool="linux-kernel" vid="" revisions_to_keep="0" rw="False"
          save_on_stop="False" snap_on_start="False"/>
        <addon:mirror xmlns:addon="urn:addon" every="1h"><to>vault</to></addon:mirror>
      </volume-config>"""

LONG_USED = (
    """<?xml version="1.0" encoding="utf-8" standalone="yes"?>
<!-- do not edit; edited on 2019-04-01 --><?editor mode="xml"?>
<qubes version="3.0" xml:lang="en">
  <labels note="mine">
    <label id="label-1" color="0xCC0000">red</label>
    <label id="label-5" color="0x555753">gray</label>
    <label id="label-8" color="0x000000">black</label>
    <label id="label-9" color="0xff00ff&#10;">pink</label>
    <label id="label-12" color="#00ffff">cyan.2</label>
  </labels>
  <pools>
    <pool driver="lvm_thin" name="lvm" thin_pool="pool00" volume_group="qubes_dom0"/>
    <pool driver="linux-kernel" dir_path="/var/lib/qubes/vm-kernels" name="linux-kernel"/>
    <pool driver="file" dir_path="/mnt/old" name="old" revisions_to_keep="some"/>
    <pool driver="btrfs" name="new" uuid="1234" a="&lt;&#10;&quot;"/>
  </pools>
  <properties>
    <property name="default_netvm" ref="sys-net"/>
    <property name="default_fw_netvm">sys-net</property>
    <property name="clockvm"></property>
    <property name="default_pool_private">lvm</property>
    <property name="later">x &amp; y</property>
    <later-on/>
  </properties>
  <domains>
    <domain id="domain-0" class="AdminVM">
      <properties>
        <property name="label">label-8</property>
      </properties>
      <features><feature name="config.default.qubes-update-check"/></features>
      <tags/>
      <volume-config><volume name="root" pool="lvm" vid="qubes_dom0/root"/></volume-config>
    </domain>"""
    + _qube(1, "TemplateVM", "fedora-29", inside="<features><feature name='qrexec'>1</feature></features>")
    + _app(
        2,
        "sys-net",
        '<property name="provides_network">True</property><property name="netvm"/>'
        '<property name="hvm">True</property><property name="autostart">True</property>',
        """
      <devices class="pci" note="wifi">
        <device backend-domain="dom0" id="00:19.0"><option name="no-strict-reset">True</option></device>
        <device backend-domain="dom0" id="0000:03:00.0"><option name="permissive">True</option></device>
        <device backend-domain="dom0" id="04_00.0" required="yes" since="2021">
          <option name="identity">0x8086:0x10ef::p020000</option><option name="no-strict-reset"/>
          <seen on="&#9;"/>
        </device>
        <device backend-domain="dom0" id="00_19.0" mode="required" identity="*"><seen on="twice"/></device>
      </devices>
      <devices class="webcam"/>""",
    )
    + _app(3, "dvm", '<property name="dispvm_allowed">True</property>')
    + _app(
        4,
        "work",
        '<property name="default_dispvm">dvm</property><property name="kernel"></property>'
        '<property name="memory"> 400 </property><property name="debug">on</property>'
        '<property name="maxmem">4000</property><property name="bootmode">quiet</property>',
        """
      <features>
        <feature name="service.cups"/><feature name="boot-mode.active"></feature>
        <feature name="boot-mode.kernelopts.quiet">quiet  splash</feature>
        <feature name="menu">a&#10;b\tc &#233; &lt;d&gt; <![CDATA[<e>]]></feature>
        <feature name="service.meminfo-writer"></feature>
      </features>
      <tags><tag name="created-by-dom0"/><tag name="created-by-dom0"/></tags>
      <devices class="block">
        <device backend-domain="sys-net" id="sda" mode="ask-to-attach" identity="*"/>
        <device backend-domain="gone" id="sda1"/>
        <device backend-domain="sys-net" id="sdb" mode="now-and-then" identity="*"/>
      </devices>"""
        + _THIN.format("work"),
    )
    + _qube(
        5,
        "DispVM",
        "disp7777",
        '<property name="dispid">7777</property><property name="template">dvm</property>',
    )
    + _qube(
        6,
        "RemoteVM",
        "far",
        '<property name="relayvm">sys-net</property><property name="remote_name">buero</property>',
        "<devices class='usb'/><volume-config x='1'/>",
    )
    + """
  </domains>
  <audit-trail xmlns="urn:x"><entry>   as it was   </entry></audit-trail>
</qubes>
"""
)
