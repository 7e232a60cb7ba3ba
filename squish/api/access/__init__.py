"""Who may ask, and from where: keys, hosts, origins."""
