"""The 32 functions of the module, and the three that the package adds in Python."""
