"""How a system runs on a device: nothing here changes what it computes."""
