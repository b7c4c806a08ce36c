"""What survives a restart: qubes.xml, read, checked and replaced in one step."""
