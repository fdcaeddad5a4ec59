"""Arrays on a device, the driver, and which driver tests open: a GPU's or the double."""
