"""The command `mrczdask`."""
